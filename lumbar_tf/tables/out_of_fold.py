"""Out-of-fold tables: what a member of the ensemble said about studies it was not trained on.

A table is a CSV with the submission's columns `row_id,normal_mild,moderate,severe`, and in our own
tables `fold` and `model` too. A foreign table's model is called after its file. One model may be spread
over several files (a fold each), and one file may hold several models; a row given twice is refused.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.files import write_table_atomically
from lumbar_tf.labels import (
    FINDINGS,
    NUM_FINDINGS,
    NUM_SEVERITIES,
    Plane,
    Severity,
    finding_index,
    parse_plane,
    parse_row_id,
    row_id,
)

Floats = NDArray[np.float64]

PROBABILITY_COLUMNS: tuple[str, ...] = tuple(severity.column for severity in Severity)
#: A row may miss a sum of 1 by this much, for tables rounded to two decimals; it is divided by its sum.
SUM_TOLERANCE = 0.01


@dataclass(frozen=True)
class OofTable:
    """One member's out-of-fold predictions.

    Attributes:
        model: the member's name: `<plane>/<backbone>` for ours, the file's stem for a foreign table.
        rows: study id -> float64 [25, 3], NaN where the table has no row.
        folds: study id -> the fold that was held out; empty where the table does not say.
    """

    model: str
    rows: dict[str, Floats]
    folds: dict[str, int]

    @property
    def source(self) -> str:
        """What the member reads: the plane of one of ours, the member itself for a foreign one."""
        return source_of(self.model)


@dataclass(frozen=True)
class Members:
    """Several tables laid over one list of studies.

    Attributes:
        names: the members' names, sorted, [num_members].
        sources: what each reads, [num_members].
        probabilities: float64 [num_members, num_studies, 25, 3], NaN where a member has no row.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    probabilities: Floats


def source_of(model: str) -> str:
    """Returns the plane in front of the slash, or the model's own name if there is none.

    >>> source_of("sagittal_t2/mobilenet_v2"), source_of("other_team")
    ('sagittal_t2', 'other_team')
    """
    plane, slash, _ = model.partition("/")
    if not slash:
        return model
    try:
        return parse_plane(plane).value
    except ValueError:
        return model


def _read_row(row: dict[str, str], where: str) -> Floats:
    """Returns one row's three probabilities, divided by their sum."""
    try:
        values = [float(row[column]) for column in PROBABILITY_COLUMNS]
    except (TypeError, ValueError):
        received = [row[column] for column in PROBABILITY_COLUMNS]
        raise ValueError(f"Probabilities must be numbers. Received: {received} ({where}).") from None
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"Probabilities must be finite and not negative. Received: {values} ({where}).")
    if abs(sum(values) - 1.0) > SUM_TOLERANCE:
        raise ValueError(
            f"A row's probabilities must sum to 1 within {SUM_TOLERANCE}. "
            f"Received: {values}, sum {sum(values):.4f} ({where})."
        )
    total = sum(values)
    return np.array([value / total for value in values])


def _read_fold(text: str | None, where: str) -> int | None:
    if text is None or not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"`fold` must be a whole number. Received: {text!r} ({where}).") from None


class _Collector:
    """Gathers rows by model while files are read, and refuses contradictions."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Floats]] = {}
        self.folds: dict[str, dict[str, int]] = {}

    def add(self, model: str, name: str, values: Floats, fold: int | None, where: str) -> None:
        try:
            study_id, finding = parse_row_id(name)
        except ValueError as error:
            raise ValueError(f"{error} ({where}).") from None
        studies = self.rows.setdefault(model, {})
        if study_id not in studies:
            studies[study_id] = np.full((NUM_FINDINGS, NUM_SEVERITIES), np.nan)
        place = studies[study_id][finding_index(finding.condition, finding.level)]
        if not math.isnan(place[0]):
            raise ValueError(
                f"A row must be given once for a model. Received: {name!r} again for {model!r} ({where})."
            )
        place[:] = values
        if fold is not None and self.folds.setdefault(model, {}).setdefault(study_id, fold) != fold:
            known = self.folds[model][study_id]
            raise ValueError(
                f"A study must be in one fold. Received: {study_id} in {known} and {fold} ({where})."
            )


def _read_file(path: Path, collector: _Collector) -> None:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("row_id", *PROBABILITY_COLUMNS) if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} must have the columns {missing}. Received: {reader.fieldnames}.")
        row, stem = None, path.stem
        for row in reader:
            where = f"{path}, line {reader.line_num}, row_id {row['row_id']}"
            model = (row.get("model") or "").strip() or stem
            collector.add(
                model, row["row_id"], _read_row(row, where), _read_fold(row.get("fold"), where), where
            )
        if row is None:
            raise ValueError(f"{path} must have a row below its header. Received: none.")


def read_tables(paths: Iterable[Path]) -> tuple[OofTable, ...]:
    """Reads out-of-fold tables, one `OofTable` a model, sorted by the model's name.

    Raises:
        ValueError: a column is absent; a row id is malformed or given twice for a model; a probability is
            not finite or negative; a row misses a sum of 1 by more than `SUM_TOLERANCE`; a study is in
            two folds. The message names file, line and row.
    """
    collector = _Collector()
    for path in paths:
        _read_file(path, collector)
    return tuple(
        OofTable(model, collector.rows[model], collector.folds.get(model, {}))
        for model in sorted(collector.rows)
    )


def restrict(tables: Sequence[OofTable], study_ids: Iterable[str]) -> list[OofTable]:
    """Returns the tables with the rows of some studies only."""
    wanted = set(study_ids)
    return [
        replace(table, rows={study: rows for study, rows in table.rows.items() if study in wanted})
        for table in tables
    ]


def align(tables: Sequence[OofTable], study_ids: Sequence[str]) -> Members:
    """Lays tables over a list of studies.

    Args:
        tables: one a member.
        study_ids: the studies of the result, in its order.

    Raises:
        ValueError: a table has a study that the list has not, or two tables have one model's name.
    """
    names = [table.model for table in tables]
    if len(set(names)) != len(names):
        raise ValueError(f"Each table must be of another model. Received: {names}.")
    index_of = {study_id: index for index, study_id in enumerate(study_ids)}
    shape = (len(tables), len(study_ids), NUM_FINDINGS, NUM_SEVERITIES)
    probabilities = np.full(shape, np.nan)
    for table, target in zip(tables, probabilities, strict=True):
        for study_id, rows in table.rows.items():
            if study_id not in index_of:
                finding = FINDINGS[int(np.argmax(~np.isnan(rows[:, 0])))]
                raise ValueError(
                    "Every row must be of a study in the label table. "
                    f"Received: {row_id(study_id, finding)!r} of model {table.model!r}."
                )
            target[index_of[study_id]] = rows
    return Members(tuple(names), tuple(table.source for table in tables), probabilities)


def merge_sources(members: Members, limit: int) -> Members:
    """Lets foreign members share a source until there are no more sources than the limit.

    Each step joins the two foreign sources that most often are there, or missing, together: of tables that
    cover the same studies and conditions nothing is lost.

    Args:
        members: as `align` made them.
        limit: number of sources, at least one more than there are planes.
    """
    sources = list(members.sources)
    is_there = np.isfinite(members.probabilities).all(axis=-1).reshape(len(sources), -1)
    planes = {plane.value for plane in Plane}
    while len(set(sources)) > limit:
        foreign = [name for name in dict.fromkeys(sources) if name not in planes]
        known = np.stack([is_there[[s == name for s in sources]].any(axis=0) for name in foreign])
        # Agreement of two sources: rows that both or neither have.
        agreement = known @ known.T.astype(np.float64) + ~known @ (~known).T.astype(np.float64)
        np.fill_diagonal(agreement, -1.0)
        first, second = sorted(np.unravel_index(np.argmax(agreement), agreement.shape))
        joined = f"{foreign[first]}+{foreign[second]}"
        sources = [joined if each in (foreign[first], foreign[second]) else each for each in sources]
    return Members(members.names, tuple(sources), members.probabilities)


def covered_studies(tables: Sequence[OofTable], study_ids: Sequence[str]) -> list[str]:
    """Returns those of the studies, in their order, that some table has a row of."""
    known = {study_id for table in tables for study_id in table.rows}
    return [study_id for study_id in study_ids if study_id in known]


def merge_folds(tables: Sequence[OofTable], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns study id -> fold as the tables and a folds file say it.

    Args:
        tables: the members.
        given: the folds file's content, which the tables must agree with.

    Raises:
        ValueError: two of them put a study into different folds: then some prediction was not out of fold.
    """
    merged = dict(given or {})
    for table in tables:
        for study_id, fold in table.folds.items():
            known = merged.setdefault(study_id, fold)
            if known != fold:
                raise ValueError(
                    "A member's fold of a study must be the one of the folds file and of the other members. "
                    f"Received: study {study_id!r}, fold {fold} of model {table.model!r} against {known}."
                )
    return merged


def write_table(
    path: Path,
    study_ids: Sequence[str],
    probabilities: Floats,
    *,
    folds: Sequence[int] | NDArray[np.integer] | None = None,
    model: str | None = None,
) -> None:
    """Writes predictions as a table, atomically; rows of NaN are left out.

    Args:
        path: the CSV.
        study_ids: [num_studies].
        probabilities: float64 [num_studies, 25, 3].
        folds: the fold that was held out for each study, [num_studies], or None for no such column.
        model: the member's name, or None for no such column.
    """
    header = ["row_id", *PROBABILITY_COLUMNS]
    header += [name for name, value in (("fold", folds), ("model", model)) if value is not None]
    rows: list[list[object]] = []
    for index, study_id in enumerate(study_ids):
        extra = [] if folds is None else [int(folds[index])]
        extra_model = [] if model is None else [model]
        for finding, values in zip(FINDINGS, probabilities[index], strict=True):
            if not np.isnan(values).any():
                numbers = [f"{value:.9g}" for value in values]
                rows.append([row_id(study_id, finding), *numbers, *extra, *extra_model])
    write_table_atomically(path, header, rows)
