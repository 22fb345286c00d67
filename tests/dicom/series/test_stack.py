from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.stack import StackCheck, check_stack, median_gap_mm
from lumbar_tf.labels import Plane

SAGITTAL = SliceGeometry((0, -120, 140), (0, 1, 0), (0, 0, -1), 0.6, 0.6, 448, 448)
AXIAL = SliceGeometry((-90, -90, 0), (1, 0, 0), (0, 1, 0), 0.6, 0.6, 320, 320)


def _sagittal(*places_mm: float) -> list[SliceGeometry]:
    return [replace(SAGITTAL, position=(place, -120, 140)) for place in places_mm]


def _block(degrees: float, centre_mm: float, count: int = 8, gap_mm: float = 3.5) -> list[SliceGeometry]:
    """Returns parallel axial slices around a disc, rotated about the patient's x."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    normal = np.array([0.0, -sine, cosine])
    corner = np.array([-90.0, -90.0 * cosine, -90.0 * sine])
    return [
        replace(
            AXIAL,
            position=tuple(
                (corner + [0, 0, centre_mm] + normal * gap_mm * (index - (count - 1) / 2)).tolist()
            ),
            column_direction=(0.0, cosine, sine),
        )
        for index in range(count)
    ]


def _check(
    geometries: list[SliceGeometry], numbers: list[int] | None = None, plane: Plane = Plane.SAGITTAL_T2
) -> StackCheck:
    return check_stack(geometries, numbers or list(range(1, len(geometries) + 1)), plane=plane)


def _notes(check: StackCheck) -> list[RejectReason]:
    return [reason for reason, _ in check.notes]


def test_an_even_stack_has_no_notes_in_any_order() -> None:
    stack = _sagittal(*np.arange(15) * 4.48)
    for order in (range(15), range(14, -1, -1), np.random.default_rng(0).permutation(15).tolist()):
        check = _check([stack[index] for index in order])
        assert (check.kept, check.rejects, check.notes) == (tuple(range(15)), (), ())


def test_five_tilted_blocks_of_an_axial_series_have_no_notes() -> None:
    blocks = [
        item
        for degrees, centre in ((-12, 80), (-6, 45), (0, 10), (8, -25), (25, -60))
        for item in _block(degrees, centre)
    ]
    assert _check(blocks, plane=Plane.AXIAL_T2).notes == ()
    assert _notes(_check(blocks, plane=Plane.SAGITTAL_T2)) == [RejectReason.MIXED_ORIENTATIONS]


def test_gaps_between_parallel_axial_blocks_are_not_missing_slices() -> None:
    blocks = [*_block(0, 0, gap_mm=3.0), *_block(0, 30, gap_mm=3.0)]  # 9 mm between them: three gaps
    assert _check(blocks, plane=Plane.AXIAL_T2).notes == ()
    numbers = [*range(1, 9), *range(11, 19)]
    assert _notes(_check(blocks, numbers, plane=Plane.AXIAL_T2)) == [RejectReason.MISSING_SLICES]


@pytest.mark.parametrize("shift_mm", [0.0, 0.009])
def test_of_slices_at_one_position_the_preferred_is_kept_whatever_the_numbers(shift_mm: float) -> None:
    stack = _sagittal(0, 5, 10 + shift_mm, 10, 15)
    for numbers in ([1, 2, 9, 3, 4], [1, 2, 3, 9, 4], [0] * 5):
        check = check_stack(stack, numbers, plane=Plane.SAGITTAL_T2, preference=[0, 0, 2, 1, 0].__getitem__)
        assert check.kept == (0, 1, 3, 4)
    assert [(index, reason) for index, reason, _ in check.rejects] == [(2, RejectReason.DUPLICATE_POSITION)]
    assert check.notes == ()


def test_another_matrix_at_the_same_position_is_a_duplicate() -> None:
    stack = _sagittal(0, 5, 10)
    # Twice the matrix over the same field: its first pixel's centre is a quarter pixel further out.
    fine = replace(
        stack[1],
        position=(5, -120 - 0.15, 140 + 0.15),
        row_spacing_mm=0.3,
        column_spacing_mm=0.3,
        rows=896,
        columns=896,
    )
    np.testing.assert_allclose(fine.centre, stack[1].centre)
    check = _check([*stack, fine])
    assert check.kept == (0, 1, 2)
    assert [index for index, _, _ in check.rejects] == [3]


def test_two_stations_in_one_plane_are_not_duplicates() -> None:
    upper = _sagittal(0, 5, 10)
    lower = [replace(geometry, position=(geometry.position[0], -120, -60)) for geometry in upper]
    check = _check([*upper, *lower])
    assert check.kept == tuple(range(6))
    assert check.notes == ()


def test_slices_half_a_millimetre_apart_are_not_duplicates() -> None:
    assert len(_check(_sagittal(*np.arange(60) * 0.5)).kept) == 60


@pytest.mark.parametrize(
    ("places", "notes"),
    [
        ((0, 4, 8, 16, 20), [RejectReason.MISSING_SLICES]),
        ((0, 4, 12), [RejectReason.MISSING_SLICES]),
        ((0, 4, 8, 20, 24), [RejectReason.MISSING_SLICES]),
        ((0, 4, 8, 12.3, 16), []),
        ((0, 4, 8, 13, 16), [RejectReason.UNEVEN_GAPS]),
        ((0, 4, 8, 14.2, 18), [RejectReason.UNEVEN_GAPS]),
        ((0, 4, 8, 8.5, 12), [RejectReason.UNEVEN_GAPS]),
        ((0,), [RejectReason.SINGLE_SLICE]),
        ((0, 4), []),
        ((), []),
    ],
)
def test_gaps_of_a_sagittal_stack(places: tuple[float, ...], notes: list[RejectReason]) -> None:
    assert _notes(_check(_sagittal(*places))) == notes


def test_numbers_and_sizes_are_noted_and_kept() -> None:
    stack = _sagittal(0, 4, 8, 12)
    check = _check([*stack[:3], replace(stack[3], rows=400)], [1, 2, 2, 3])
    assert check.kept == (0, 1, 2, 3)
    assert _notes(check) == [RejectReason.DUPLICATE_INSTANCE_NUMBER, RejectReason.MIXED_SIZES]
    assert _check(stack, [0, 0, 0, 0]).notes == ()


def test_there_must_be_a_number_for_each_slice() -> None:
    with pytest.raises(ValueError, match="2 slices, 1 numbers"):
        check_stack(_sagittal(0, 4), [1], plane=Plane.SAGITTAL_T1)


@given(st.lists(st.integers(-20, 20), max_size=12))
def test_kept_and_rejected_slices_are_all_slices_and_each_place_stays_once(places: list[int]) -> None:
    check = _check(_sagittal(*places))
    rejected = [index for index, _, _ in check.rejects]
    assert sorted([*check.kept, *rejected]) == list(range(len(places)))
    assert sorted(places[index] for index in check.kept) == sorted(set(places))


def test_median_gap() -> None:
    assert median_gap_mm([]) == 0
    assert median_gap_mm(_sagittal(3)) == 0
    assert median_gap_mm(_sagittal(3, 3)) == 0
    assert median_gap_mm(_sagittal(9, 0, 4.5, 4.5)) == 4.5
    blocks = [*_block(-10, 40), *_block(20, 0)]
    assert median_gap_mm(blocks) == pytest.approx(3.5)
