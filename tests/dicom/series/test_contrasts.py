from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.series.contrasts import Contrast, find_places, split_contrasts
from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.image_kinds import Component

SAGITTAL = SliceGeometry((0, -120, 140), (0, 1, 0), (0, 0, -1), 0.6, 0.6, 448, 448)
T2 = SeriesHeader(description="t2", echo_time_ms=105.0, repetition_time_ms=3600.0)


def _at(*places_mm: float) -> list[SliceGeometry]:
    return [replace(SAGITTAL, position=(place, -120, 140)) for place in places_mm]


def _split(headers: Sequence[SeriesHeader], geometries: Sequence[SliceGeometry]) -> tuple[Contrast, ...]:
    return split_contrasts(headers, geometries, lambda header: header.component)


def test_an_ordinary_series_is_one_contrast_without_a_name() -> None:
    (contrast,) = _split([T2] * 5, _at(0, 4, 8, 12, 16))
    assert (contrast.name, contrast.members, contrast.header) == ("", (0, 1, 2, 3, 4), T2)
    assert len(contrast.places) == 5


def test_values_of_single_slices_do_not_split_a_stack() -> None:
    headers = [replace(T2, repetition_time_ms=3600.0 + place, protocol=str(place)) for place in range(5)]
    headers[2] = replace(headers[2], echo_time_ms=102.0, is_contrast=True)
    (contrast,) = _split(headers, _at(0, 4, 8, 12, 16))
    assert contrast.members == (0, 1, 2, 3, 4)


def test_the_same_values_split_images_of_one_place() -> None:
    headers = [T2, replace(T2, echo_time_ms=102.0)] * 3
    first, second = _split(headers, _at(0, 0, 4, 4, 8, 8))
    assert {first.members, second.members} == {(0, 2, 4), (1, 3, 5)}
    assert {first.name, second.name} == {"TE 105 ms", "TE 102 ms"}


def test_echoes_far_apart_are_never_one_stack() -> None:
    headers = [T2, T2, replace(T2, echo_time_ms=15.0)]
    assert [contrast.members for contrast in _split(headers, _at(0, 4, 8))] == [(0, 1), (2,)]


def test_later_time_points_are_repetitions() -> None:
    headers = [replace(T2, temporal_position=time) for time in (3, 2, 3, 2, 1)]
    first, later = _split(headers, _at(0, 0, 4, 4, 8))
    assert (first.members, first.is_repetition, first.name) == ((1, 3, 4), False, "group 1")
    assert (later.members, later.is_repetition, later.name) == ((0, 2), True, "later time points")


def test_a_lone_phase_series_has_a_name() -> None:
    (contrast,) = _split([replace(T2, component=Component.PHASE)] * 2, _at(0, 4))
    assert contrast.name == "phase"


def test_many_contrasts_end_in_bounded_time_and_lose_no_image() -> None:
    headers = [replace(T2, echo_time_ms=10.0 + index) for index in range(1000)]
    contrasts = _split(headers, _at(*[0.0] * 1000))
    assert len(contrasts) == 64
    assert sorted(index for contrast in contrasts for index in contrast.members) == list(range(1000))


def test_places_are_equal_for_other_matrices_and_differ_between_slices() -> None:
    fine = replace(
        SAGITTAL,
        position=(0, -120 - 0.15, 140 + 0.15),
        row_spacing_mm=0.3,
        column_spacing_mm=0.3,
        rows=896,
        columns=896,
    )
    coarse, same, *others = find_places([SAGITTAL, fine, *_at(0.5, -0.5), replace(SAGITTAL, rows=300)])
    assert coarse == same
    assert len({coarse, *others}) == 4


@given(st.permutations(range(12)))
def test_the_order_of_images_does_not_change_the_contrasts(order: list[int]) -> None:
    echoes = (15.0, 105.0, 60.0)
    images = [(replace(T2, echo_time_ms=echo), place) for echo in echoes for place in _at(0, 4, 8, 12)]
    shuffled = [images[index] for index in order]

    def describe(items: Sequence[tuple[SeriesHeader, SliceGeometry]]) -> list[tuple[str, list[float]]]:
        contrasts = _split([header for header, _ in items], [geometry for _, geometry in items])
        return [
            (contrast.name, sorted(items[index][1].position[0] for index in contrast.members))
            for contrast in contrasts
        ]

    assert describe(shuffled) == describe(images)
    assert sorted(name for name, _ in describe(images)) == ["TE 105 ms", "TE 15 ms", "TE 60 ms"]


def test_every_image_is_in_one_contrast() -> None:
    rng = np.random.default_rng(0)
    echoes = rng.choice([15.0, 90.0, 105.0], 40).tolist()
    contrasts = _split(
        [replace(T2, echo_time_ms=echo) for echo in echoes], _at(*rng.integers(0, 9, 40).tolist())
    )
    assert sorted(index for contrast in contrasts for index in contrast.members) == list(range(40))
