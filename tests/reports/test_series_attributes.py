import math

import pytest

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import BuildOptions, Manifest, StudyEntry
from lumbar_tf.reports.series_attributes import (
    Attribute,
    bin_count,
    bin_length,
    bin_matrix,
    describe_series,
    study_groupings,
)


@pytest.mark.parametrize("step", range(1, 60))
def test_the_lower_end_of_a_bin_lies_in_it(step: int) -> None:
    start, name = bin_length(step / 10, 0.1)
    assert start == pytest.approx(step / 10)
    assert name == f"{step / 10:.1f} to {(step + 1) / 10:.1f} mm"


@pytest.mark.parametrize("length_mm", [0.0, -1.0, math.nan, math.inf])
def test_an_invalid_length_is_unknown(length_mm: float) -> None:
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


def test_attributes_absent_from_the_header_are_unknown_and_a_single_slice_has_no_gap() -> None:
    series = SeriesSummary("1", Plane.AXIAL_T2, "", 1, 320, 256, 0.5, 0.5, 0.0)
    rows = describe_series(series)
    assert rows[Attribute.VENDOR][1] == rows[Attribute.FIELD_STRENGTH][1] == "unknown"
    assert rows[Attribute.SLICE_GAP][1] == "one slice"


def _series(
    name: str,
    plane: Plane | None,
    vendor: str = "ge",
    tesla: float | None = 1.5,
    side: int = 320,
    num_slices: int = 20,
) -> SeriesSummary:
    return SeriesSummary(
        name, plane, "" if plane else "other", num_slices, side, side, 0.5, 0.5, 4.0, vendor, tesla
    )


def _manifest(studies: dict[str, list[SeriesSummary]]) -> Manifest:
    entries = tuple(
        StudyEntry(study_id=name, patient_group=name, source_digest="", num_slices={}, series=tuple(series))
        for name, series in studies.items()
    )
    return Manifest(
        schema_version="2.0.0",
        packages={},
        options=BuildOptions(studies_per_shard=1, num_folds=2, fold_seed=0),
        planes={},
        studies=entries,
        rejects=(),
    )


@pytest.fixture(scope="module")
def groups() -> dict[str, tuple[dict[str, str], tuple[str, ...]]]:
    t1, t2, axial = Plane
    manifest = _manifest(
        {
            "whole": [_series("a", t1), _series("b", t2, side=512), _series("c", axial, side=1024)],
            "mixed": [
                _series("a", t1),
                _series("b", t2, vendor="siemens", tesla=1.494),
                _series("c", axial, tesla=3.0),
            ],
            "unknown": [
                _series("a", t1, vendor="", tesla=None),
                _series("b", None, vendor="philips", tesla=3.0),
            ],
            "two": [
                _series("a", axial, side=256, num_slices=9),
                _series("b", axial, side=640, num_slices=30),
            ],
            "none": [],
        }
    )
    return {
        grouping.attribute: (dict(grouping.group_of), grouping.order)
        for grouping in study_groupings(manifest)
    }


def test_a_study_is_in_the_group_that_its_kept_series_share(groups: dict) -> None:
    vendors, order = groups["Vendor"]
    assert vendors == {
        "whole": "ge", "mixed": "several", "unknown": "unknown", "two": "ge", "none": "no such series"
    }  # fmt: skip
    assert set(order[-2:]) == {"several", "no such series"}
    strengths, order = groups["Field strength"]
    # Some scanners store 1.494 for 1.5, so only the 3 T series makes it several.
    assert (
        strengths["whole"] == "1.5 T"
        and strengths["mixed"] == "several"
        and strengths["unknown"] == "unknown"
    )
    assert order[:2] == ("unknown", "1.5 T")


def test_studies_are_grouped_by_planes_and_by_the_matrix_of_each_plane(groups: dict) -> None:
    planes, order = groups["Planes"]
    assert planes["whole"] == "all three" == order[0]
    assert planes["unknown"] == "no Sagittal T2/STIR, no Axial T2"
    axial, order = groups["Matrix, Axial T2"]
    assert axial["whole"] == "over 768 px" and axial["mixed"] == "257 to 384 px"
    # Of two series, the one with more slices counts.
    assert axial["two"] == "513 to 768 px" and axial["unknown"] == "no such series"
    assert order == ("257 to 384 px", "513 to 768 px", "over 768 px", "no such series")
    assert groups["Matrix, Sagittal T2/STIR"][0]["whole"] == "385 to 512 px"


@pytest.mark.parametrize(
    ("side", "name"), [(256, "up to 256 px"), (257, "257 to 384 px"), (769, "over 768 px")]
)
def test_the_larger_side_decides_and_ends_are_inclusive(side: int, name: str) -> None:
    assert bin_matrix(side, 10)[1] == bin_matrix(10, side)[1] == name
