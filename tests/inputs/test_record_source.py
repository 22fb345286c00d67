from collections.abc import Callable

import numpy as np
import pytest

from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.record_source import read_points, wanted_records
from lumbar_tf.labels import Plane
from tests.inputs.made_records import Cohort, write_cohort


@pytest.fixture(scope="module")
def cohort(
    tmp_path_factory: pytest.TempPathFactory,
    make_stack: Callable[..., list[Slice]],
    mirror: Callable[[Slice], Slice],
) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("records"), make_stack, mirror)


def test_annotated_points_are_read_by_study(cohort: Cohort) -> None:
    points = read_points(cohort.source(Plane.SAGITTAL_T2, "11", "13"))
    assert sorted(points) == ["11", "13"]
    assert np.isnan(points["11"][3]).all()
    np.testing.assert_array_equal(points["13"][4:], cohort.points["13"][4:])


def test_wanted_studies_without_a_slice_are_passed_over(cohort: Cohort) -> None:
    records = wanted_records(cohort.source(Plane.AXIAL_T2, "14", "12", "mirrored", "no such study"))
    assert [each["study_id"].numpy() for each in records] == [b"12", b"mirrored"]
