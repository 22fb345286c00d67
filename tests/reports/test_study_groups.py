import pytest

from lumbar_tf.dicom.study import SeriesSummary
from lumbar_tf.labels import Plane
from lumbar_tf.records.manifest import BuildOptions, Manifest, StudyEntry
from lumbar_tf.reports.study_groups import matrix_row, study_groupings


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
    return {each.attribute: (dict(each.group_of), each.order) for each in study_groupings(manifest)}


def test_a_study_is_in_the_group_that_its_kept_series_share(groups: dict) -> None:
    vendors, order = groups["Vendor"]
    assert vendors == {
        "whole": "ge", "mixed": "several", "unknown": "unknown", "two": "ge", "none": "no such series"
    }  # fmt: skip
    assert set(order[-2:]) == {"several", "no such series"}
    strengths, order = groups["Field strength"]
    # 1.494 is how some scanners write 1.5: only the 3 T series makes it several.
    assert (
        strengths["whole"] == "1.5 T"
        and strengths["mixed"] == "several"
        and strengths["unknown"] == "unknown"
    )
    assert order[:2] == ("unknown", "1.5 T")


def test_planes_and_matrices_are_told_by_plane(groups: dict) -> None:
    planes, order = groups["Planes"]
    assert planes["whole"] == "all three" == order[0]
    assert planes["unknown"] == "no Sagittal T2/STIR, no Axial T2"
    axial, order = groups["Matrix, Axial T2"]
    assert axial["whole"] == "over 768 px" and axial["mixed"] == "257 to 384 px"
    # Of two series that with the most slices counts.
    assert axial["two"] == "513 to 768 px" and axial["unknown"] == "no such series"
    assert order == ("257 to 384 px", "513 to 768 px", "over 768 px", "no such series")
    assert groups["Matrix, Sagittal T2/STIR"][0]["whole"] == "385 to 512 px"


@pytest.mark.parametrize(
    ("side", "name"), [(256, "up to 256 px"), (257, "257 to 384 px"), (769, "over 768 px")]
)
def test_the_larger_side_decides_and_ends_are_inclusive(side: int, name: str) -> None:
    assert matrix_row(side, 10)[1] == matrix_row(10, side)[1] == name
