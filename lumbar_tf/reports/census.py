"""Counts over a data set: planes, scanners, sizes, labels, and what was left out or noted."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import FINDINGS, MISSING_LABEL, NUM_FINDINGS, NUM_SEVERITIES, Plane
from lumbar_tf.reports.label_contradictions import Contradiction
from lumbar_tf.reports.series_attributes import Attribute, describe_series

#: So many cases of one reason are listed, the first by study and file; all are counted.
MAX_CASES = 100


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """What is kept of one study once it has been looked at.

    Attributes:
        study_id: the study.
        series: its series, kept or left out.
        rejects: what was left out or noted.
        contradictions: what does not fit together, with a word on where.
        labels: int8 [25], None where there is no row.
        num_points: level points that could be placed.
    """

    study_id: str
    series: tuple[SeriesSummary, ...]
    rejects: tuple[Reject, ...] = ()
    contradictions: tuple[tuple[Contradiction, str], ...] = ()
    labels: NDArray[np.int8] | None = None
    num_points: int = 0


@dataclass(frozen=True, order=True)
class Case:
    """One thing that was left out, noted or found contradictory; unknown fields are ""."""

    study_id: str
    series_id: str
    file_name: str
    message: str


@dataclass(frozen=True)
class CaseList:
    """All cases of one code.

    Attributes:
        code: of a `RejectReason` or a `Contradiction`.
        kind: `fault`, `note`, `choice` or `contradiction`.
        count: how many there are.
        num_studies: studies that they name.
        cases: the first `MAX_CASES`.
    """

    code: str
    kind: str
    count: int
    num_studies: int
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class PlaneCount:
    """How much there is of a plane."""

    plane: Plane
    num_studies: int
    num_series: int
    num_slices: int


@dataclass(frozen=True)
class Breakdown:
    """The kept series by one attribute.

    Attributes:
        attribute: what they are counted by.
        rows: the values in their natural order, each with its number of series by plane.
    """

    attribute: Attribute
    rows: tuple[tuple[str, Mapping[Plane, int]], ...]

    def condensed(self, max_rows: int = 14) -> "Breakdown":
        """Returns the most frequent rows in their order, and one for all the others."""
        if len(self.rows) <= max_rows:
            return self
        frequent = sorted(self.rows, key=lambda row: -sum(row[1].values()))[: max_rows - 1]
        names = {name for name, _ in frequent}
        others: Counter[Plane] = Counter()
        for name, counts in self.rows:
            if name not in names:
                others.update(counts)
        kept = [row for row in self.rows if row[0] in names]
        return Breakdown(self.attribute, (*kept, (f"{len(self.rows) - len(kept)} others", dict(others))))


@dataclass(frozen=True, eq=False)
class Census:
    """All counts.

    Attributes:
        num_studies: studies that were found.
        num_usable: those with a slice of any plane.
        num_graded: those with a row of labels.
        num_points: level points that could be placed.
        num_series_left_out: readable series that were left out.
        planes: by plane.
        combinations: studies by the planes that they have, most frequent first.
        breakdowns: kept series by attribute.
        labels: int64 [25, 4], studies by finding: Normal/Mild, Moderate, Severe, missing; None where no
            study has labels.
        left_out: faults, then notes, then choices, the most frequent first.
        contradictions: the most frequent first.
    """

    num_studies: int
    num_usable: int
    num_graded: int
    num_points: int
    num_series_left_out: int
    planes: tuple[PlaneCount, ...]
    combinations: tuple[tuple[tuple[Plane, ...], int], ...]
    breakdowns: tuple[Breakdown, ...]
    labels: NDArray[np.int64] | None
    left_out: tuple[CaseList, ...]
    contradictions: tuple[CaseList, ...]


class Tally:
    """Adds studies up, in any order; of each it keeps no more than numbers, ids and a few cases."""

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()
        self._planes: dict[Plane, Counter[str]] = {plane: Counter() for plane in Plane}
        self._combinations: Counter[tuple[Plane, ...]] = Counter()
        self._attributes: dict[Attribute, dict[tuple[float, str], Counter[Plane]]] = {
            each: {} for each in Attribute
        }
        self._labels = np.zeros((NUM_FINDINGS, NUM_SEVERITIES + 1), np.int64)
        self._cases: dict[RejectReason | Contradiction, _Cases] = {}

    def add(self, facts: StudyFacts) -> None:
        """Counts one study."""
        kept = [each for each in facts.series if each.plane is not None]
        planes = tuple(plane for plane in Plane if any(each.plane is plane for each in kept))
        self._combinations[planes] += 1
        self._totals["studies"] += 1
        self._totals["usable"] += bool(planes)
        self._totals["points"] += facts.num_points
        self._totals["left out"] += len(facts.series) - len(kept)
        for plane in planes:
            self._planes[plane]["studies"] += 1
        for each in kept:
            self._add_series(each)
        self._add_labels(facts.labels)
        self.add_rejects(facts.rejects)
        for kind, message in facts.contradictions:
            self._case_list(kind).add([Case(facts.study_id, "", "", message)])

    def add_rejects(self, rejects: Iterable[Reject]) -> None:
        """Counts what was left out or noted of a source, beside its studies."""
        for each in rejects:
            case = Case(each.study_id, each.series_id, each.file_name, each.message)
            self._case_list(each.reason).add([case])

    def census(self) -> Census:
        """Returns the counts so far."""
        return Census(
            num_studies=self._totals["studies"],
            num_usable=self._totals["usable"],
            num_graded=self._totals["graded"],
            num_points=self._totals["points"],
            num_series_left_out=self._totals["left out"],
            planes=tuple(
                PlaneCount(plane, counts["studies"], counts["series"], counts["slices"])
                for plane, counts in self._planes.items()
            ),
            combinations=tuple(
                sorted(self._combinations.items(), key=lambda item: (-item[1], [p.value for p in item[0]]))
            ),
            breakdowns=tuple(self._breakdown(each) for each in Attribute),
            labels=self._labels.copy() if self._totals["graded"] else None,
            left_out=tuple(self._case_lists(RejectReason)),
            contradictions=tuple(self._case_lists(Contradiction)),
        )

    def _add_series(self, series: SeriesSummary) -> None:
        if series.plane is None:
            return
        self._planes[series.plane]["series"] += 1
        self._planes[series.plane]["slices"] += series.num_slices
        for attribute, row in describe_series(series).items():
            self._attributes[attribute].setdefault(row, Counter())[series.plane] += 1

    def _add_labels(self, labels: NDArray[np.int8] | None) -> None:
        if labels is not None:
            self._totals["graded"] += 1
            # The last column is that of the missing.
            columns = np.where(labels == MISSING_LABEL, NUM_SEVERITIES, labels)
            self._labels[np.arange(len(FINDINGS)), columns] += 1

    def _breakdown(self, attribute: Attribute) -> Breakdown:
        rows = sorted(self._attributes[attribute].items())
        return Breakdown(attribute, tuple((name, dict(counts)) for (_, name), counts in rows))

    def _case_list(self, kind: RejectReason | Contradiction) -> "_Cases":
        return self._cases.setdefault(kind, _Cases())

    def _case_lists(self, of: type[Enum]) -> Iterator[CaseList]:
        order = ["fault", "note", "choice", "contradiction"]
        lists = [each.freeze(kind) for kind, each in self._cases.items() if isinstance(kind, of)]
        yield from sorted(lists, key=lambda each: (order.index(each.kind), -each.count, each.code))


class _Cases:
    """The cases of one code: all counted, the first kept."""

    def __init__(self) -> None:
        self.count = 0
        self.studies: set[str] = set()
        self.first: list[Case] = []

    def add(self, cases: Iterable[Case]) -> None:
        for case in cases:
            self.count += 1
            self.studies.add(case.study_id)
            self.first.append(case)
        # Studies come in any order: trimmed now and then, so that the first ones are kept.
        if len(self.first) > 2 * MAX_CASES:
            self.first = sorted(self.first)[:MAX_CASES]

    def freeze(self, kind: RejectReason | Contradiction) -> CaseList:
        name = kind.kind.value if isinstance(kind, RejectReason) else "contradiction"
        cases = tuple(sorted(self.first)[:MAX_CASES])
        return CaseList(kind.value, name, self.count, len(self.studies - {""}), cases)
