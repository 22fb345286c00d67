import random

import numpy as np

from lumbar_tf.dicom.reasons import ReasonKind, Reject, RejectReason
from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Plane, Severity
from lumbar_tf.reports.census import MAX_CASES, Breakdown, Census, StudyFacts, Tally
from lumbar_tf.reports.label_contradictions import Contradiction
from lumbar_tf.reports.series_attributes import Attribute


def _series(
    plane: Plane | None, *, num_slices: int = 17, rows: int = 448, vendor: str = "ge"
) -> SeriesSummary:
    reason = "" if plane else RejectReason.LOCALIZER.value
    return SeriesSummary(f"{plane}", plane, reason, num_slices, rows, rows, 0.6, 0.6, 4.4, vendor, 1.5)


def _census(*facts: StudyFacts) -> Census:
    tally = Tally()
    for study in facts:
        tally.add(study)
    return tally.census()


def test_planes_count_studies_series_and_slices() -> None:
    census = _census(
        StudyFacts("1", (_series(Plane.SAGITTAL_T2), _series(Plane.AXIAL_T2, num_slices=30))),
        StudyFacts("2", (_series(Plane.AXIAL_T2), _series(Plane.AXIAL_T2), _series(None))),
        StudyFacts("3", ()),
    )
    counts = {count.plane: (count.num_studies, count.num_series, count.num_slices) for count in census.planes}
    assert counts == {
        Plane.SAGITTAL_T1: (0, 0, 0),
        Plane.SAGITTAL_T2: (1, 1, 17),
        Plane.AXIAL_T2: (2, 3, 64),
    }
    assert (census.num_studies, census.num_usable, census.num_series_left_out) == (3, 2, 1)
    assert dict(census.combinations) == {
        (Plane.SAGITTAL_T2, Plane.AXIAL_T2): 1,
        (Plane.AXIAL_T2,): 1,
        (): 1,
    }


def test_every_breakdown_counts_every_kept_series_once() -> None:
    census = _census(
        StudyFacts("1", (_series(Plane.SAGITTAL_T1, rows=320), _series(Plane.SAGITTAL_T2, vendor=""))),
        StudyFacts("2", (_series(Plane.SAGITTAL_T2), _series(None, rows=77))),
    )
    assert [breakdown.attribute for breakdown in census.breakdowns] == list(Attribute)
    for breakdown in census.breakdowns:
        totals = {plane: sum(counts.get(plane, 0) for _, counts in breakdown.rows) for plane in Plane}
        assert list(totals.values()) == [1, 2, 0]
    matrix = next(breakdown for breakdown in census.breakdowns if breakdown.attribute is Attribute.MATRIX)
    assert [name for name, _ in matrix.rows] == ["320 x 320", "448 x 448"]


def test_a_condensed_breakdown_loses_no_series() -> None:
    rows = tuple((f"{size}", {Plane.SAGITTAL_T1: size % 7 + 1, Plane.AXIAL_T2: 2}) for size in range(40))
    condensed = Breakdown(Attribute.MATRIX, rows).condensed(14)
    assert len(condensed.rows) == 14
    assert condensed.rows[-1][0] == "27 others"
    for plane in Plane:
        assert sum(counts.get(plane, 0) for _, counts in condensed.rows) == sum(
            counts.get(plane, 0) for _, counts in rows
        )
    assert Breakdown(Attribute.MATRIX, rows[:14]).condensed(14).rows == rows[:14]


def test_labels_are_counted_by_finding_and_grade_with_the_missing_last() -> None:
    first = np.full(NUM_FINDINGS, Severity.NORMAL_MILD, np.int8)
    first[3] = Severity.SEVERE
    second = np.full(NUM_FINDINGS, MISSING_LABEL, np.int8)
    second[3] = Severity.MODERATE
    census = _census(
        StudyFacts("1", (), labels=first), StudyFacts("2", (), labels=second), StudyFacts("3", ())
    )
    assert census.labels is not None
    assert census.num_graded == 2
    assert census.labels[0].tolist() == [1, 0, 0, 1]
    assert census.labels[3].tolist() == [0, 1, 1, 0]
    assert (census.labels.sum(axis=1) == 2).all()


def test_without_a_label_table_there_are_no_labels() -> None:
    assert _census(StudyFacts("1", ())).labels is None


def test_cases_are_all_counted_and_the_first_listed_in_whatever_order_studies_come() -> None:
    facts = [
        StudyFacts(
            f"{study:04d}",
            (),
            rejects=(
                Reject(f"{study:04d}", "1", "7.dcm", RejectReason.TRUNCATED, "the rule"),
                Reject(f"{study:04d}", "1", "8.dcm", RejectReason.TRUNCATED, "the rule"),
            ),
            contradictions=((Contradiction.SIDES_SWAPPED, "by 3 mm"),),
        )
        for study in range(500)
    ]
    expected = _census(*facts)
    shuffled = random.Random(1).sample(facts, len(facts))
    assert _census(*shuffled).left_out == expected.left_out
    (truncated,) = expected.left_out
    assert (truncated.code, truncated.kind, truncated.count, truncated.num_studies) == (
        "truncated",
        "fault",
        1000,
        500,
    )
    assert len(truncated.cases) == MAX_CASES
    assert truncated.cases[-1].study_id == f"{MAX_CASES // 2 - 1:04d}"
    (swapped,) = expected.contradictions
    assert (swapped.code, swapped.kind, swapped.count) == ("sides_swapped", "contradiction", 500)


def test_faults_come_before_notes_and_choices() -> None:
    reasons = [RejectReason.LOCALIZER, RejectReason.SINGLE_SLICE, RejectReason.TRUNCATED, RejectReason.COLOUR]
    rejects = tuple(Reject("1", "", "", reason, "the rule") for reason in [*reasons, RejectReason.COLOUR])
    census = _census(StudyFacts("1", (), rejects=rejects))
    assert [cases.code for cases in census.left_out] == ["truncated", "single_slice", "colour", "localizer"]
    assert {cases.kind for cases in census.left_out} == {kind.value for kind in ReasonKind}


def test_rejects_of_a_source_are_counted_without_a_study() -> None:
    tally = Tally()
    tally.add_rejects([Reject("", "", "train.csv", RejectReason.ABSENT_STUDY, "2 studies are absent")])
    census = tally.census()
    assert census.num_studies == 0
    assert census.left_out[0].num_studies == 0
    assert census.left_out[0].cases[0].file_name == "train.csv"
