from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.dicom.study import Slice
from lumbar_tf.inputs.record_source import mask_labels, read_points, wanted_records
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS, Plane
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


def test_wanted_studies_without_slices_are_skipped(cohort: Cohort) -> None:
    records = wanted_records(cohort.source(Plane.AXIAL_T2, "14", "12", "mirrored", "no such study"))
    assert [record["study_id"].numpy() for record in records] == [b"12", b"mirrored"]


def _records() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(
        {
            "study_id": ["a", "b", "c"],
            "labels": tf.constant(np.tile(np.arange(NUM_FINDINGS) % 3, (3, 1)), tf.int64),
            "points": tf.zeros([3, NUM_FINDINGS, 3]),
        }
    )


def _flags(*rows: int) -> np.ndarray:
    flags = np.zeros(NUM_FINDINGS, np.bool_)
    flags[list(rows)] = True
    return flags


def test_only_the_given_labels_of_the_given_studies_are_hidden() -> None:
    dataset = _records().map(mask_labels({"c": _flags(0, 24), "a": _flags(7), "elsewhere": _flags(1)}))
    found = {record["study_id"].decode(): record for record in dataset.as_numpy_iterator()}
    plain = np.arange(NUM_FINDINGS) % 3
    for study_id, hidden in (("a", [7]), ("b", []), ("c", [0, 24])):
        expected = plain.copy()
        expected[hidden] = MISSING_LABEL
        np.testing.assert_array_equal(found[study_id]["labels"], expected)
        assert found[study_id]["labels"].dtype == np.int64
        assert found[study_id]["points"].shape == (NUM_FINDINGS, 3)


def test_no_hidden_labels_change_nothing() -> None:
    for masked, plain in zip(_records().map(mask_labels({})), _records(), strict=True):
        np.testing.assert_array_equal(masked["labels"], plain["labels"])


def test_shapes_stay_static() -> None:
    dataset = _records().map(mask_labels({"a": _flags(1)}))
    assert dataset.element_spec["labels"].shape == (NUM_FINDINGS,)


def test_an_array_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(24,\) \(study a\)"):
        mask_labels({"a": np.zeros(24, np.bool_)})
