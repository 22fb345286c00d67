import math

import pytest

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import Plane
from lumbar_tf.reports.series_attributes import Attribute, bin_count, bin_length, describe_series


@pytest.mark.parametrize("step", range(1, 60))
def test_the_lower_end_of_a_bin_lies_in_it(step: int) -> None:
    start, name = bin_length(step / 10, 0.1)
    assert start == pytest.approx(step / 10)
    assert name == f"{step / 10:.1f} to {(step + 1) / 10:.1f} mm"


@pytest.mark.parametrize("length_mm", [0.0, -1.0, math.nan, math.inf])
def test_a_length_that_is_none_is_unknown(length_mm: float) -> None:
    assert bin_length(length_mm, 0.5)[1] == "unknown"


def test_the_bins_of_counts_follow_each_other_without_a_gap() -> None:
    rows = [bin_count(count) for count in range(1, 300)]
    assert rows == sorted(rows)
    for count, (start, name) in enumerate(rows, start=1):
        first, _, last = name.replace(" and more", " to 999999").partition(" to ")
        assert start == int(first) <= count <= int(last or first)


def test_a_series_is_described_by_every_attribute() -> None:
    series = SeriesSummary("1", Plane.AXIAL_T2, "", 42, 320, 256, 0.5, 0.5, 2.9, "siemens", 1.494)
    names = {attribute: name for attribute, (_, name) in describe_series(series).items()}
    assert names == {
        Attribute.VENDOR: "siemens",
        Attribute.FIELD_STRENGTH: "1.5 T",
        Attribute.MATRIX: "320 x 256",
        Attribute.PIXEL_SPACING: "0.5 to 0.6 mm",
        Attribute.SLICE_GAP: "2.5 to 3.0 mm",
        Attribute.NUM_SLICES: "31 to 50",
    }


def test_what_a_header_does_not_say_is_unknown_and_a_lone_slice_has_no_gap() -> None:
    series = SeriesSummary("1", Plane.AXIAL_T2, "", 1, 320, 256, 0.5, 0.5, 0.0)
    rows = describe_series(series)
    assert rows[Attribute.VENDOR][1] == rows[Attribute.FIELD_STRENGTH][1] == "unknown"
    assert rows[Attribute.SLICE_GAP][1] == "one slice"
