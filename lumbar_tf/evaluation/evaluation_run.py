"""Evaluation of prediction files: metrics.json and pictures."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.bundle.model_card import Measured
from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.ensemble.stacking_run import OOF_NAMES
from lumbar_tf.evaluation.calibration import CalibrationChange, calibration_changes, read_before
from lumbar_tf.evaluation.comparison import ComparedTable, Grouping, Subgroup, compare_tables, score_subgroups
from lumbar_tf.evaluation.evaluated_table import WorstCase, prepare_table, worst_cases
from lumbar_tf.evaluation.picture_sheets import Drawing, draw_sheets
from lumbar_tf.evaluation.plots import PanelPicture
from lumbar_tf.evaluation.scorecard import (
    Scorecard,
    ScoreRow,
    evaluate_table,
    floor_tables,
    json_safe,
    score_row,
    score_rows_json,
    scorecard_json,
)
from lumbar_tf.files import write_json_atomically
from lumbar_tf.labels import Condition, row_id
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import (
    OutOfFoldTable,
    align_members,
    covered_studies,
    read_out_of_fold_tables,
)

if TYPE_CHECKING:
    pass


def measure_out_of_fold(
    stack: Path, study_ids: Sequence[str], labels: NDArray[np.integer], *, num_resamples: int = 1000
) -> Measured:
    """Scores what `lumbar_tf.stack` left in a folder: nested predictions of both heads.

    Args:
        stack: the folder of `oof.csv` and `oof_probability.csv`.
        study_ids: studies of the label table.
        labels: int [num_labelled, 25], -1 where missing.
        num_resamples: of the bootstrap.
    """
    cards = {
        head: _evaluate(stack / name, study_ids, labels, num_resamples) for head, name in OOF_NAMES.items()
    }
    return Measured(
        "Out of fold: training studies, by networks and stackers that were fitted without them",
        competition=cards[Head.COMPETITION],
        probability=cards[Head.PROBABILITY],
    )


def _evaluate(
    path: Path, study_ids: Sequence[str], labels: NDArray[np.integer], num_resamples: int
) -> Mapping[str, Any]:
    tables = read_out_of_fold_tables([path])
    covered = covered_studies(tables, study_ids)
    place_of = {study_id: place for place, study_id in enumerate(study_ids)}
    chosen = np.asarray(labels)[[place_of[study_id] for study_id in covered]]
    card = evaluate_table(
        chosen, align_members(tables, covered).probabilities[0], num_resamples=num_resamples
    )
    content: Mapping[str, Any] = scorecard_json(card)
    return content


def read_named_tables(paths: Sequence[Path]) -> list[OutOfFoldTable]:
    """Reads tables, file by file; models of one name in two files get their folder's name in front.

    Args:
        paths: the first file holds one model, the others any number.

    Raises:
        ValueError: a table is malformed, the first file holds several models, or two
            models cannot be told apart.
    """
    tables = [(path, table) for path in paths for table in read_out_of_fold_tables([path])]
    in_first = [table.model for path, table in tables if path is paths[0]]
    if len(in_first) != 1:
        raise ValueError(f"{paths[0]} must hold one model's rows. Received: {in_first}.")
    counts = Counter(table.model for _, table in tables)
    named = [
        table if counts[table.model] == 1 else replace(table, model=f"{path.parent.name}/{table.model}")
        for path, table in tables
    ]
    names = [table.model for table in named]
    if len(set(names)) != len(names):
        raise ValueError(f"Models must have names or folders of their own. Received: {names}.")
    return named


METRICS_NAME = "metrics.json"

SCORES_NAME = "scores.json"

#: Of an evaluation: figures, comparison, sub-groups, pictures.
_NUM_PARTS = 4


@dataclass(frozen=True, eq=False)
class EvaluationRun:
    """What `evaluate_files` found.

    Attributes:
        model: the name of the table that was judged.
        card: the figures.
        num_left_out: labelled studies without a prediction.
        comparison: the table and the others; empty where there is no other.
        subgroups: scores of groups of studies; empty where nothing tells them apart.
        worst: the findings that cost most.
        pictures: the panels of each condition.
        num_resamples: of the bootstrap.
        before: calibration before and after the members were combined; empty where no members were given.
    """

    model: str
    card: Scorecard
    num_left_out: int
    comparison: tuple[ComparedTable, ...]
    subgroups: tuple[Subgroup, ...]
    worst: tuple[WorstCase, ...]
    pictures: Mapping[Condition, Sequence[PanelPicture]]
    num_resamples: int
    before: tuple[CalibrationChange, ...] = ()

    @property
    def title(self) -> str:
        """The model's name and the number of studies."""
        return f"{self.model}, {self.card.num_studies} studies"


def evaluate_files(
    predictions: Path | Sequence[Path],
    labels: Sequence[Path],
    out: Path,
    *,
    head: Head = Head.PROBABILITY,
    before: Sequence[Path] = (),
    groupings: Sequence[Grouping] = (),
    num_resamples: int = 1000,
    seed: int = 0,
    progress: ProgressMaker = silent_progress,
) -> EvaluationRun:
    """Scores a table of predictions against label tables and writes metrics.json and pictures.

    Args:
        predictions: a CSV row_id,normal_mild,moderate,severe of one model; where there are several, the first
            is judged, and the others, which may hold several models each, are compared with it.
        labels: label tables in the layout of train.csv.
        out: the folder, made where it is absent.
        head: what the first table holds, see `scorecard.judge`.
        before: tables of the members as they come, whose plain mean stands for "before calibration".
        groupings: ways to tell studies apart, for scores of sub-groups.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        progress: shows the parts that are done.

    Raises:
        ValueError: the first table holds several models, or a table a study without labels.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_named_tables([predictions] if isinstance(predictions, Path) else predictions)
    members = align_members(tables, all_ids)
    study_ids = covered_studies(tables[:1], all_ids)
    index_of = {study_id: index for index, study_id in enumerate(all_ids)}
    rows = [index_of[study_id] for study_id in study_ids]
    chosen, probabilities = all_labels[rows], members.probabilities[0, rows]
    options = {"num_resamples": num_resamples, "seed": seed}
    judged, _ = prepare_table(chosen, probabilities, head=head)
    earlier = read_before(before, study_ids) if before else None
    out.mkdir(parents=True, exist_ok=True)
    with progress(_NUM_PARTS) as advance:
        card = evaluate_table(chosen, probabilities, head=head, **options)
        advance(1)
        named = dict(zip(members.names, members.probabilities, strict=True))
        comparison = compare_tables(all_labels, named, **options) if len(tables) > 1 else ()
        advance(1)
        subgroups = score_subgroups(study_ids, judged.labels, judged.table, groupings, **options)
        advance(1)
        title = f"{tables[0].model}, {len(study_ids)} studies"
        pictures = draw_sheets(Drawing(judged, card.conditions, before=earlier, **options), out, title=title)
        advance(1)
    evaluated = EvaluationRun(
        model=tables[0].model,
        card=card,
        num_left_out=len(all_ids) - len(study_ids),
        comparison=comparison,
        subgroups=subgroups,
        worst=worst_cases(study_ids, judged.labels, judged.table),
        pictures=pictures,
        num_resamples=num_resamples,
        before=() if earlier is None else calibration_changes(judged, earlier),
    )
    write_json_atomically(out / METRICS_NAME, evaluated_json(evaluated))
    return evaluated


def evaluated_json(evaluated: EvaluationRun) -> dict[str, object]:
    """Returns the content of metrics.json."""
    return {
        **scorecard_json(evaluated.card),
        "model": evaluated.model,
        "num_left_out": evaluated.num_left_out,
        "num_resamples": evaluated.num_resamples,
        "comparison": [json_safe(asdict(each)) for each in evaluated.comparison],
        "before": [json_safe(asdict(each)) for each in evaluated.before],
        "subgroups": [json_safe(asdict(each)) for each in evaluated.subgroups],
        "worst_cases": [
            {
                "row_id": row_id(each.study_id, each.finding),
                "label": each.label.title,
                "predicted": list(each.predicted),
                "cost": each.cost,
            }
            for each in evaluated.worst
        ],
    }


def compare_files(predictions: Sequence[Path], labels: Sequence[Path]) -> list[ScoreRow]:
    """Scores every model of several tables on the same labelled studies, floors first.

    Args:
        predictions: tables of one or several models.
        labels: label tables in the layout of train.csv.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_out_of_fold_tables(predictions)
    study_ids = covered_studies(tables, all_ids)
    index_of = {study_id: index for index, study_id in enumerate(all_ids)}
    chosen = all_labels[[index_of[study_id] for study_id in study_ids]]
    members = align_members(tables, study_ids)
    answers = {**floor_tables(chosen), **dict(zip(members.names, members.probabilities, strict=True))}
    return [score_row(name, chosen, values) for name, values in answers.items()]


def write_scores(rows: Sequence[ScoreRow], out: Path) -> None:
    """Writes scores.json: the lines of a comparison."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SCORES_NAME).write_text(json.dumps(score_rows_json(rows), indent=1), encoding="utf-8")
