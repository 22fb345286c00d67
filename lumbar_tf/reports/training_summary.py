"""Summary of a member's training so far: folds, epochs and out-of-fold scores, from the files of its run."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.config import TrainingConfig, dump_config
from lumbar_tf.ensemble.loss_attribution import LossAttribution
from lumbar_tf.evaluation.cells import Cell, make_cells
from lumbar_tf.evaluation.evaluated_table import (
    FAMILIES,
    EvaluatedTable,
    WorstCase,
    answered_labels,
    worst_cases,
)
from lumbar_tf.evaluation.metrics import condition_level_prior
from lumbar_tf.inputs.study_batches import batches_per_epoch
from lumbar_tf.labels import Family
from lumbar_tf.tables.labels import LABELS_NAME, read_record_labels
from lumbar_tf.tables.out_of_fold import align_members, read_out_of_fold_tables, restrict_studies
from lumbar_tf.training.checkpoints import HISTORY_NAME
from lumbar_tf.training.cross_validation import split_fold
from lumbar_tf.training.fold_crops import read_fold_crops
from lumbar_tf.training.metadata import FoldMetadata, member_attribution, read_fold_metadata
from lumbar_tf.training.runs import ERROR_NAME, LOCALIZER, PlaneRun, table_name

#: Fewer than in `evaluate`, because the page is rewritten after every fold.
NUM_RESAMPLES = 200
_NUM_WORST = 15

#: Labels by study, int8 [25].
StudyLabels = Mapping[str, NDArray[np.int8]]
#: One row per epoch, as in `history.json`.
History = tuple[dict[str, float], ...]


@dataclass(frozen=True, eq=False)
class FoldSummary:
    """Training of one fold.

    Attributes:
        number: the held-out fold.
        num_train: training studies.
        num_watched: training studies set aside for early stopping.
        num_held_out: held-out studies.
        num_batches: steps per epoch.
        history: one row per finished epoch.
        record: content of `fold.json`; None until the fold is trained.
        jitter_mm: standard deviation of the shift of training crops along x, y, z; None without jitter.
        is_answered: whether the held-out studies have been predicted.
    """

    number: int
    num_train: int
    num_watched: int
    num_held_out: int
    num_batches: int
    history: History
    record: FoldMetadata | None
    jitter_mm: tuple[float, ...] | None
    is_answered: bool

    @property
    def seconds(self) -> float:
        """Duration of all finished epochs."""
        return sum(row["seconds"] for row in self.history)

    @property
    def epoch_seconds(self) -> float | None:
        """Median duration of an epoch, without the first, which traces the graph, if there are others."""
        later = [row["seconds"] for row in self.history[1:]] or [row["seconds"] for row in self.history]
        return statistics.median(later) if later else None

    @property
    def steps_per_second(self) -> float | None:
        """Training steps per second, including everything else that an epoch does."""
        return self.num_batches / self.epoch_seconds if self.epoch_seconds else None

    @property
    def studies_per_second(self) -> float | None:
        """Training studies per second, likewise."""
        return self.num_train / self.epoch_seconds if self.epoch_seconds else None


@dataclass(frozen=True, eq=False)
class FamilyScore:
    """Out-of-fold scores of one family of findings.

    Attributes:
        family: the family.
        cell: metrics of the uncalibrated predictions.
        confusion: counts by label (rows) and most probable grade (columns), int64 [3, 3].
    """

    family: Family
    cell: Cell
    confusion: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold scores of a grader.

    Attributes:
        num_studies: studies with predictions and labels.
        families: families with at least one prediction for a label.
        worst: the findings with the largest loss.
    """

    num_studies: int
    families: tuple[FamilyScore, ...]
    worst: tuple[WorstCase, ...]


@dataclass(frozen=True, eq=False)
class MemberSummary:
    """A localizer or a grader.

    Attributes:
        name: such as `sagittal_t2/mobilenet_v2`.
        is_localizer: whether it is a localizer instead of a grader.
        backbone: name of the backbone.
        weights: initial weights as text, without a path.
        training: training configuration.
        config: its part of the plane's configuration, as YAML.
        seed: seed of the plane.
        folds: all folds of the plane.
        error: content of a localizer's `error.json`; None until it is written.
        out_of_fold: a grader's scores; None until a fold is predicted, or without labels.
        attribution: what points cost a grader, over the folds predicted so far; None where it is not known.
    """

    name: str
    is_localizer: bool
    backbone: str
    weights: str
    training: TrainingConfig
    config: str
    seed: int
    folds: tuple[FoldSummary, ...]
    error: dict[str, Any] | None
    out_of_fold: OutOfFold | None
    attribution: LossAttribution | None

    @property
    def num_done(self) -> int:
        """Number of folds whose held-out studies have been predicted."""
        return sum(fold.is_answered for fold in self.folds)

    @property
    def diagnosis(self) -> str:
        """Sentences on a loss that is large, with its likely cause; "" if there is none.

        A loss is large if it is not below the prior's, or if points cost much of it.
        """
        cause = self.attribution.cause if self.attribution is not None else ""
        verdict = f"Likely cause of the loss: {cause}." if cause else ""
        behind = []
        for score in self.out_of_fold.families if self.out_of_fold is not None else ():
            loss, prior = (score.cell.metrics[name].value for name in ("log_loss", "prior_log_loss"))
            if not loss < prior:
                behind.append(f"{score.family.value} {loss:.3f} (prior {prior:.3f})")
        if not behind:
            return verdict
        rest = "or points that are off" if self.attribution is None else "or wrong labels; points cost little"
        verdict = verdict or (
            "Likely causes: too few epochs or studies, a learning rate that is too high, so many epochs that "
            f"the network is overconfident (its AUC is high then, and the stacker corrects it), {rest}."
        )
        return (
            "The weighted log loss out of fold is not below that of the prior by condition and level: "
            f"{', '.join(behind)}. {verdict}"
        )

    @property
    def packages(self) -> dict[str, str]:
        """Package versions that trained the last fold."""
        records = [fold.record for fold in self.folds if fold.record is not None]
        return max(records, key=lambda record: record.finished_at).packages if records else {}


def summarize_member(run: PlaneRun, member: str) -> MemberSummary:
    """Reads the files of a member's run that exist so far.

    Args:
        run: the plane's run.
        member: `LOCALIZER` or the name of a backbone.

    Raises:
        ValueError: the plane has no localizer, or a file of the run is damaged.
    """
    part = run.config.localizer if member == LOCALIZER else run.config.grader
    if part is None:
        raise ValueError(
            f"`member` must not be the localizer of a plane without one. Received: {run.config.plane.value}."
        )
    backbone = run.config.localizer.backbone if run.config.localizer and member == LOCALIZER else member
    tables = [
        path
        for fold in run.fold_numbers
        if (path := run.fold_directory(member, fold) / table_name(member)).is_file()
    ]
    return MemberSummary(
        name=run.member_name(member),
        is_localizer=member == LOCALIZER,
        backbone=backbone,
        weights=_describe_weights(part.init_from, part.training.weights_of(backbone)),
        training=part.training,
        config=dump_config(part),
        seed=run.config.seed,
        folds=tuple(_summarize_fold(run, member, fold, part.training) for fold in run.fold_numbers),
        error=_read_error(run) if member == LOCALIZER else None,
        out_of_fold=None if member == LOCALIZER else score_out_of_fold(tables, _labels(run)),
        attribution=None if member == LOCALIZER else member_attribution(run, member),
    )


def _describe_weights(init_from: str | None, weights: str) -> str:
    """Describes the initial weights; of a path only the last part, as the rest belongs to a machine."""
    if init_from is not None:
        return f"all weights from {Path(init_from).name}"
    if weights == "none":
        return "randomly initialised"
    return "ImageNet weights" if weights == "imagenet" else f"backbone weights from {Path(weights).name}"


def _labels(run: PlaneRun) -> StudyLabels:
    return read_record_labels(run.records) if (run.records / LABELS_NAME).is_file() else {}


def _summarize_fold(run: PlaneRun, member: str, fold: int, training: TrainingConfig) -> FoldSummary:
    directory = run.fold_directory(member, fold)
    sources = split_fold(run, fold, training, seed=run.fold_seed(fold))
    crops = read_fold_crops(directory)
    num_train = len(sources.train.study_ids)
    return FoldSummary(
        number=fold,
        num_train=num_train,
        num_watched=len(sources.early_stopping.study_ids),
        num_held_out=len(sources.held_out.study_ids),
        num_batches=batches_per_epoch(num_train, training.batch_studies),
        history=_read_history(directory / HISTORY_NAME),
        record=read_fold_metadata(directory),
        jitter_mm=crops.jitter_mm if crops is not None else None,
        is_answered=run.is_done(member, fold),
    )


def _read_history(path: Path) -> History:
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ()


def _read_error(run: PlaneRun) -> dict[str, Any] | None:
    path = run.member_directory(LOCALIZER) / ERROR_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def score_out_of_fold(tables: Sequence[Path], labels: StudyLabels) -> OutOfFold | None:
    """Scores the out-of-fold tables of the finished folds together.

    Args:
        tables: out-of-fold tables of one member, one per fold.
        labels: labels of the records.

    Returns:
        The scores; None if no labelled finding has a prediction.
    """
    found = restrict_studies(read_out_of_fold_tables(tables), labels)
    study_ids = sorted({study_id for table in found for study_id in table.rows})
    if not study_ids:
        return None
    answers = align_members(found, study_ids).probabilities[0]
    known, _ = answered_labels(
        np.stack([labels[study_id] for study_id in study_ids]).astype(np.int64), answers
    )
    evaluated = EvaluatedTable(known, answers, answers)
    groups = {name: rows for name, rows in FAMILIES.items() if evaluated.rows(rows)[0].size}
    if not groups:
        return None
    prior = np.broadcast_to(condition_level_prior(known), answers.shape)
    cells = make_cells(evaluated, prior, groups, num_resamples=NUM_RESAMPLES, seed=0)
    families = tuple(
        FamilyScore(Family(name), cell, evaluated.confusion(rows))
        for (name, rows), cell in zip(groups.items(), cells, strict=True)
    )
    return OutOfFold(len(study_ids), families, worst_cases(study_ids, known, answers, num_worst=_NUM_WORST))
