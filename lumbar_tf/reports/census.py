"""Census of a data set: counts of planes, scanners, sizes, labels, exclusions and notes."""

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

#: Cases listed per reason, the first by study and file; all are counted.
MAX_CASES = 100


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """Facts about one study that a census counts.

    Attributes:
        study_id: the study.
        series: its series, kept or left out.
        rejects: files and series that were left out or noted.
        contradictions: contradictions in labels and points, each with its location.
        labels: int8 [25]; None if the study has no row in the label table.
        num_points: level points that lie on a slice of the study.
    """

    study_id: str
    series: tuple[SeriesSummary, ...]
    rejects: tuple[Reject, ...] = ()
    contradictions: tuple[tuple[Contradiction, str], ...] = ()
    labels: NDArray[np.int8] | None = None
    num_points: int = 0


@dataclass(frozen=True, order=True)
class Case:
    """An exclusion, a note or a contradiction; unknown fields are ""."""

    study_id: str
    series_id: str
    file_name: str
    message: str


@dataclass(frozen=True)
class CaseList:
    """All cases of one code.

    Attributes:
        code: value of a `RejectReason` or a `Contradiction`.
        kind: `fault`, `note`, `choice` or `contradiction`.
        count: number of cases.
        num_studies: number of studies with such a case.
        cases: the first `MAX_CASES`.
    """

    code: str
    kind: str
    count: int
    num_studies: int
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class PlaneCount:
    """Numbers of studies, kept series and slices of a plane."""

    plane: Plane
    num_studies: int
    num_series: int
    num_slices: int


@dataclass(frozen=True)
class Breakdown:
    """The kept series by one attribute.

    Attributes:
        attribute: the attribute.
        rows: (value, number of series by plane), in the natural order of the values.
    """

    attribute: Attribute
    rows: tuple[tuple[str, Mapping[Plane, int]], ...]

    def condensed(self, max_rows: int = 14) -> "Breakdown":
        """Returns the most frequent rows in their order, with the others added up in a last row."""
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
    """Counts over a data set.

    Attributes:
        num_studies: number of studies.
        num_usable: studies with a slice of any plane.
        num_graded: studies with a row in the label table.
        num_points: level points that lie on a slice of their study.
        num_series_left_out: readable series that were left out.
        planes: counts by plane.
        combinations: studies by available planes, most frequent first.
        breakdowns: kept series by attribute.
        labels: int64 [25, 4], studies by finding and label: Normal/Mild, Moderate, Severe, missing; None if
            no study has labels.
        left_out: faults, then notes, then choices, the most frequent first.
        contradictions: contradictions, the most frequent first.
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
    """Accumulates a census over studies in any order; memory holds counts, ids and a few cases."""

    def __init__(self) -> None:
        self._totals: Counter[str] = Counter()
        self._planes: dict[Plane, Counter[str]] = {plane: Counter() for plane in Plane}
        self._combinations: Counter[tuple[Plane, ...]] = Counter()
        self._attributes: dict[Attribute, dict[tuple[float, str], Counter[Plane]]] = {
            attribute: {} for attribute in Attribute
        }
        self._labels = np.zeros((NUM_FINDINGS, NUM_SEVERITIES + 1), np.int64)
        self._cases: dict[RejectReason | Contradiction, _Cases] = {}

    def add(self, facts: StudyFacts) -> None:
        """Counts one study."""
        kept = [series for series in facts.series if series.plane is not None]
        planes = tuple(plane for plane in Plane if any(series.plane is plane for series in kept))
        self._combinations[planes] += 1
        self._totals["studies"] += 1
        self._totals["usable"] += bool(planes)
        self._totals["points"] += facts.num_points
        self._totals["left out"] += len(facts.series) - len(kept)
        for plane in planes:
            self._planes[plane]["studies"] += 1
        for series in kept:
            self._add_series(series)
        self._add_labels(facts.labels)
        self.add_rejects(facts.rejects)
        for kind, message in facts.contradictions:
            self._case_list(kind).add(Case(facts.study_id, "", "", message))

    def add_rejects(self, rejects: Iterable[Reject]) -> None:
        """Counts exclusions and notes, for instance those of a source that belong to no study."""
        for reject in rejects:
            case = Case(reject.study_id, reject.series_id, reject.file_name, reject.message)
            self._case_list(reject.reason).add(case)

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
            breakdowns=tuple(self._breakdown(attribute) for attribute in Attribute),
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
            # The last column counts missing labels.
            columns = np.where(labels == MISSING_LABEL, NUM_SEVERITIES, labels)
            self._labels[np.arange(len(FINDINGS)), columns] += 1

    def _breakdown(self, attribute: Attribute) -> Breakdown:
        rows = sorted(self._attributes[attribute].items())
        return Breakdown(attribute, tuple((name, dict(counts)) for (_, name), counts in rows))

    def _case_list(self, kind: RejectReason | Contradiction) -> "_Cases":
        return self._cases.setdefault(kind, _Cases())

    def _case_lists(self, of: type[Enum]) -> Iterator[CaseList]:
        order = ["fault", "note", "choice", "contradiction"]
        lists = [cases.freeze(kind) for kind, cases in self._cases.items() if isinstance(kind, of)]
        yield from sorted(lists, key=lambda cases: (order.index(cases.kind), -cases.count, cases.code))


class _Cases:
    """The cases of one code: all are counted, the first are kept."""

    def __init__(self) -> None:
        self.count = 0
        self.studies: set[str] = set()
        self.first: list[Case] = []

    def add(self, case: Case) -> None:
        self.count += 1
        self.studies.add(case.study_id)
        self.first.append(case)
        # Studies arrive in any order, so more than MAX_CASES are held between sorts.
        if len(self.first) > 2 * MAX_CASES:
            self.first = sorted(self.first)[:MAX_CASES]

    def freeze(self, kind: RejectReason | Contradiction) -> CaseList:
        name = kind.kind.value if isinstance(kind, RejectReason) else "contradiction"
        cases = tuple(sorted(self.first)[:MAX_CASES])
        return CaseList(kind.value, name, self.count, len(self.studies - {""}), cases)
