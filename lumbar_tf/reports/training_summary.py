"""What a member's training has left so far, read from the files of its run."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumbar_tf.config import TrainingConfig, dump_config
from lumbar_tf.inputs.study_batches import batches_per_epoch
from lumbar_tf.reports.training_scores import OutOfFold, StudyLabels, score_out_of_fold
from lumbar_tf.tables.labels import LABELS_NAME, read_record_labels
from lumbar_tf.training.checkpoints import HISTORY_NAME
from lumbar_tf.training.cross_validation import split_fold
from lumbar_tf.training.fold_crops import read_fold_crops
from lumbar_tf.training.metadata import FoldMetadata, read_fold_metadata
from lumbar_tf.training.runs import ERROR_NAME, LOCALIZER, PlaneRun, table_name

#: A row an epoch, as `history.json` has them.
History = tuple[dict[str, float], ...]


@dataclass(frozen=True, eq=False)
class FoldSummary:
    """One fold.

    Attributes:
        number: the fold that is held out.
        num_train: studies that it learns from.
        num_watched: training studies that are kept out for early stopping.
        num_held_out: studies that it answers.
        num_batches: steps an epoch.
        history: a row an epoch that is done.
        record: what `fold.json` says; None until the fold is trained.
        jitter_mm: how far training crops are moved along x, y, z; None where none are.
        is_answered: whether the held-out studies have been answered.
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
        """Of all epochs that are done."""
        return sum(row["seconds"] for row in self.history)

    @property
    def epoch_seconds(self) -> float | None:
        """Median of an epoch; the first, which traces the graph, counts only where it is alone."""
        later = [row["seconds"] for row in self.history[1:]] or [row["seconds"] for row in self.history]
        return statistics.median(later) if later else None

    @property
    def steps_per_second(self) -> float | None:
        """Training steps, with all that an epoch does beside them."""
        return self.num_batches / self.epoch_seconds if self.epoch_seconds else None

    @property
    def studies_per_second(self) -> float | None:
        """Training studies, likewise."""
        return self.num_train / self.epoch_seconds if self.epoch_seconds else None


@dataclass(frozen=True, eq=False)
class MemberSummary:
    """A localizer or a grader.

    Attributes:
        name: `sagittal_t2/mobilenet_v2`.
        is_localizer: whether it points instead of grading.
        backbone: of the network.
        weights: where the backbone starts, or the run that all weights start from; no path.
        training: how it is fitted.
        config: its part of the plane's configuration, as YAML.
        seed: of the plane.
        folds: all of the plane's.
        error: what `error.json` says of a localizer; None until it was measured.
        out_of_fold: a grader's scores; None until a fold is answered, or without labels.
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

    @property
    def num_done(self) -> int:
        """Folds whose held-out studies have been answered."""
        return sum(each.is_answered for each in self.folds)

    @property
    def packages(self) -> dict[str, str]:
        """Installed where the last fold was trained."""
        records = [each.record for each in self.folds if each.record is not None]
        return max(records, key=lambda each: each.finished_at).packages if records else {}


def summarize_member(run: PlaneRun, member: str) -> MemberSummary:
    """Reads what there is of a member.

    Args:
        run: the plane's run.
        member: `LOCALIZER` or a backbone's name.

    Raises:
        ValueError: the plane has no localizer, or a file of the run is damaged.
    """
    part = run.config.localizer if member == LOCALIZER else run.config.grader
    if part is None:
        raise ValueError(f"The plane {run.config.plane.value} has no localizer.")
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
        weights=_start(part.init_from, part.training.weights_of(backbone)),
        training=part.training,
        config=dump_config(part),
        seed=run.config.seed,
        folds=tuple(_summarize_fold(run, member, fold, part.training) for fold in run.fold_numbers),
        error=_read_error(run) if member == LOCALIZER else None,
        out_of_fold=None if member == LOCALIZER else score_out_of_fold(tables, _labels(run)),
    )


def _start(init_from: str | None, weights: str) -> str:
    """Says where weights come from by the last name of a path: the rest is of a machine."""
    if init_from is not None:
        return f"all weights from {Path(init_from).name}"
    if weights == "none":
        return "from nothing"
    return "ImageNet" if weights == "imagenet" else f"backbone from {Path(weights).name}"


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
