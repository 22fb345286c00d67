"""Evaluation of prediction files: `metrics.json`, pictures, and the scores of members and exports."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.bundle.model_card import Measured
from lumbar_tf.cli.progress import ProgressMaker, silent_progress
from lumbar_tf.ensemble.loss_attribution import LossAttribution
from lumbar_tf.ensemble.stacker import Head
from lumbar_tf.ensemble.stacking_run import OOF_NAMES
from lumbar_tf.evaluation.attributed_stack import attribute_stack
from lumbar_tf.evaluation.comparison import (
    ComparedTable,
    Subgroup,
    compare_tables,
    score_subgroups,
    subgroup_json,
)
from lumbar_tf.evaluation.evaluated_table import WorstCase, prepare_table, worst_cases
from lumbar_tf.evaluation.picture_sheets import SheetData, draw_sheets
from lumbar_tf.evaluation.plots import PanelPicture
from lumbar_tf.evaluation.reliability import CalibrationChange, calibration_changes, read_uncalibrated
from lumbar_tf.evaluation.scorecard import (
    Scorecard,
    ScoreRow,
    evaluate_table,
    floor_tables,
    score_row,
    score_rows_json,
    scorecard_json,
)
from lumbar_tf.evaluation.set_metrics import SetEvaluation, evaluate_sets, sets_json
from lumbar_tf.files import json_safe, write_json_atomically
from lumbar_tf.labels import Condition, row_id
from lumbar_tf.tables.groups import Grouping, GroupTable, read_group_table
from lumbar_tf.tables.labels import read_label_tables
from lumbar_tf.tables.out_of_fold import (
    OutOfFoldTable,
    align_members,
    covered_studies,
    read_out_of_fold_tables,
)
from lumbar_tf.tables.set_tables import read_set_table

METRICS_NAME = "metrics.json"
SCORES_NAME = "scores.json"

#: Parts of an evaluation for the progress display: points, metrics, comparison, subgroups, sets, pictures.
_NUM_PARTS = 6


@dataclass(frozen=True, eq=False)
class EvaluationRun:
    """Result of `evaluate_files`.

    Attributes:
        model: name of the evaluated table's model.
        card: scores and metrics.
        num_left_out: number of labelled studies without a prediction.
        comparison: scores of the table and the others; empty without other tables.
        subgroups: scores of groups of studies; empty without groupings.
        worst: the findings with the largest losses.
        pictures: the panels of each condition.
        num_resamples: number of bootstrap resamples.
        calibration: calibration before and after stacking; empty without tables of members.
        points: what points cost the evaluated stack, first, and each of its members; empty without tables
            of members at annotated points.
        sets: coverage and size of the prediction sets; None without a table of sets.
        groups: groupings of a table of groups; None without one.
    """

    model: str
    card: Scorecard
    num_left_out: int
    comparison: tuple[ComparedTable, ...]
    subgroups: tuple[Subgroup, ...]
    worst: tuple[WorstCase, ...]
    pictures: Mapping[Condition, Sequence[PanelPicture]]
    num_resamples: int
    calibration: tuple[CalibrationChange, ...] = ()
    points: Mapping[str, LossAttribution] = field(default_factory=dict)
    sets: SetEvaluation | None = None
    groups: GroupTable | None = None

    @property
    def title(self) -> str:
        """The model's name and the number of studies."""
        return f"{self.model}, {self.card.num_studies} studies"


def evaluate_files(
    predictions: Path | Sequence[Path],
    labels: Sequence[Path],
    out: Path | None,
    *,
    head: Head = Head.PROBABILITY,
    members: Sequence[Path] = (),
    points: Sequence[Path] = (),
    sets: Path | None = None,
    groupings: Sequence[Grouping] = (),
    groups: Path | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    progress: ProgressMaker = silent_progress,
) -> EvaluationRun:
    """Scores a table of predictions against label tables and writes metrics.json and pictures.

    Args:
        predictions: a CSV row_id,normal_mild,moderate,severe of one model. Of several files, the first is
            evaluated and the others, which may contain several models each, are compared with it.
        labels: label tables in the layout of train.csv.
        out: the output folder, created if absent; None writes and draws nothing.
        head: meaning of the first table's predictions, see `evaluated_table.prepare_table`.
        members: tables of the members; the calibration of their plain mean is reported as before stacking.
        points: tables that the evaluated one was stacked from, beside which training wrote those at
            annotated points; what points cost is reported, see `attributed_stack.attribute_stack`.
        sets: table of prediction sets of the first table's findings, from `set_tables.write_set_table`.
        groupings: partitions of the studies, for scores of subgroups.
        groups: table of more groupings, see `tables.groups.read_group_table`.
        num_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        progress: progress display.

    Raises:
        ValueError: the first file contains several models, or a table a study without labels; or a table is
            malformed.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_named_tables([predictions] if isinstance(predictions, Path) else predictions)
    aligned = align_members(tables, all_ids)
    study_ids = covered_studies(tables[:1], all_ids)
    rows = _places(all_ids, study_ids)
    chosen, probabilities = all_labels[rows], aligned.probabilities[0, rows]
    options = {"num_resamples": num_resamples, "seed": seed}
    evaluated, _ = prepare_table(chosen, probabilities, head=head)
    group_table = None if groups is None else read_group_table(groups, study_ids)
    groupings = _join_groupings(groupings, group_table, groups)
    uncalibrated = read_uncalibrated(members, study_ids) if members else None
    with progress(_NUM_PARTS) as advance:
        attributions = attribute_stack(points, tables[0], all_ids, all_labels, head=head) if points else {}
        advance(1)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        card = evaluate_table(chosen, probabilities, head=head, **options)
        advance(1)
        by_name = dict(zip(aligned.names, aligned.probabilities, strict=True))
        comparison = compare_tables(all_labels, by_name, **options) if len(tables) > 1 else ()
        advance(1)
        subgroups = score_subgroups(study_ids, evaluated, groupings, **options)
        advance(1)
        set_metrics = None
        if sets is not None:
            set_metrics = evaluate_sets(
                read_set_table(sets), study_ids, evaluated.labels, groupings, **options
            )
        advance(1)
        data = SheetData(evaluated, card.conditions, uncalibrated=uncalibrated, **options)
        title = f"{tables[0].model}, {len(study_ids)} studies"
        pictures = {} if out is None else draw_sheets(data, out, title=title)
        advance(1)
    run = EvaluationRun(
        model=tables[0].model,
        card=card,
        num_left_out=len(all_ids) - len(study_ids),
        comparison=comparison,
        subgroups=subgroups,
        worst=worst_cases(study_ids, evaluated.labels, evaluated.table),
        pictures=pictures,
        num_resamples=num_resamples,
        calibration=() if uncalibrated is None else calibration_changes(evaluated, uncalibrated),
        points=attributions,
        sets=set_metrics,
        groups=group_table,
    )
    if out is not None:
        write_json_atomically(out / METRICS_NAME, evaluation_json(run))
    return run


def _join_groupings(
    groupings: Sequence[Grouping], table: GroupTable | None, path: Path | None
) -> tuple[Grouping, ...]:
    """Returns the groupings of the records and of a table, whose names must differ."""
    added = () if table is None else table.groupings
    known = {grouping.attribute for grouping in groupings}
    repeated = [grouping.attribute for grouping in added if grouping.attribute in known]
    if repeated:
        raise ValueError(
            f"{path}: columns must have other names than the groupings of the records. Received: {repeated}."
        )
    return (*groupings, *added)


def evaluation_json(run: EvaluationRun) -> dict[str, object]:
    """Returns the content of metrics.json."""
    return {
        **scorecard_json(run.card),
        "model": run.model,
        "num_left_out": run.num_left_out,
        "num_resamples": run.num_resamples,
        "comparison": [json_safe(asdict(table)) for table in run.comparison],
        "before": [json_safe(asdict(change)) for change in run.calibration],
        "points": points_json(run.points),
        "prediction_sets": json_safe(run.sets and sets_json(run.sets)),
        "subgroups": [subgroup_json(subgroup) for subgroup in run.subgroups],
        "worst_cases": [
            {
                "row_id": row_id(case.study_id, case.finding),
                "label": case.label.title,
                "predicted": list(case.predicted),
                "cost": case.cost,
            }
            for case in run.worst
        ],
    }


def points_json(points: Mapping[str, LossAttribution]) -> list[dict[str, object]]:
    """Returns what points cost as metrics.json has it, a row for the stack and for each member."""
    return [
        {
            "name": name,
            **{key: value for key, value in asdict(costs).items() if key != "slice_offsets"},
            "cause": costs.cause,
        }
        for name, costs in points.items()
    ]


def read_named_tables(paths: Sequence[Path]) -> list[OutOfFoldTable]:
    """Reads tables file by file; models with the same name get the name of their folder in front.

    Args:
        paths: the first file contains one model, the others any number.

    Raises:
        ValueError: a table is malformed (see `out_of_fold.read_out_of_fold_tables`), the first file contains
            several models, or two models have the same name and folder.
    """
    tables = [(path, table) for path in paths for table in read_out_of_fold_tables([path])]
    in_first = [table.model for path, table in tables if path is paths[0]]
    if len(in_first) != 1:
        raise ValueError(f"{paths[0]} must contain the rows of one model. Received: {in_first}.")
    counts = Counter(table.model for _, table in tables)
    named = [
        table if counts[table.model] == 1 else replace(table, model=f"{path.parent.name}/{table.model}")
        for path, table in tables
    ]
    names = [table.model for table in named]
    if len(set(names)) != len(names):
        raise ValueError(f"Models must have different names or folders. Received: {names}.")
    return named


def measure_out_of_fold(
    stack: Path, study_ids: Sequence[str], labels: NDArray[np.integer], *, num_resamples: int = 1000
) -> Measured:
    """Returns the metrics of an exported ensemble on its training studies.

    Every study is predicted by networks and a stacker that were fitted without it: the nested predictions of
        both heads
    that `lumbar_tf.stack` writes.

    Args:
        stack: the folder of `oof.csv` and `oof_probability.csv`.
        study_ids: studies of the label table.
        labels: int [num_labelled, 25], -1 where missing.
        num_resamples: number of bootstrap resamples.
    """
    cards = {}
    for head, name in OOF_NAMES.items():
        tables = read_out_of_fold_tables([stack / name])
        covered = covered_studies(tables, study_ids)
        chosen = np.asarray(labels)[_places(study_ids, covered)]
        probabilities = align_members(tables, covered).probabilities[0]
        card: Mapping[str, Any] = scorecard_json(
            evaluate_table(chosen, probabilities, num_resamples=num_resamples)
        )
        cards[head] = card
    return Measured(
        "Out of fold: training studies, by networks and stackers that were fitted without them",
        competition=cards[Head.COMPETITION],
        probability=cards[Head.PROBABILITY],
    )


def compare_files(predictions: Sequence[Path], labels: Sequence[Path]) -> list[ScoreRow]:
    """Returns the scores of every model of several tables on the same labelled studies, baselines first.

    Args:
        predictions: tables of one or more models.
        labels: label tables in the layout of train.csv.
    """
    all_ids, all_labels = read_label_tables(labels)
    tables = read_out_of_fold_tables(predictions)
    study_ids = covered_studies(tables, all_ids)
    chosen = all_labels[_places(all_ids, study_ids)]
    members = align_members(tables, study_ids)
    named = {**floor_tables(chosen), **dict(zip(members.names, members.probabilities, strict=True))}
    return [score_row(name, chosen, values) for name, values in named.items()]


def write_scores(rows: Sequence[ScoreRow], out: Path) -> None:
    """Writes scores.json: the rows of a comparison."""
    write_json_atomically(out / SCORES_NAME, score_rows_json(rows))


def _places(all_ids: Sequence[str], study_ids: Sequence[str]) -> list[int]:
    """Returns the index of each study in the list of all."""
    place_of = {study_id: place for place, study_id in enumerate(all_ids)}
    return [place_of[study_id] for study_id in study_ids]
