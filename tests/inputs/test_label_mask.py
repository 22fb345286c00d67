import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.inputs.label_mask import mask_labels
from lumbar_tf.labels import MISSING_LABEL, NUM_FINDINGS


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


def test_only_the_named_labels_of_the_named_studies_are_hidden() -> None:
    dataset = _records().map(mask_labels({"c": _flags(0, 24), "a": _flags(7), "elsewhere": _flags(1)}))
    found = {each["study_id"].decode(): each for each in dataset.as_numpy_iterator()}
    plain = np.arange(NUM_FINDINGS) % 3
    for study_id, hidden in (("a", [7]), ("b", []), ("c", [0, 24])):
        expected = plain.copy()
        expected[hidden] = MISSING_LABEL
        np.testing.assert_array_equal(found[study_id]["labels"], expected)
        assert found[study_id]["labels"].dtype == np.int64
        assert found[study_id]["points"].shape == (NUM_FINDINGS, 3)


def test_nothing_to_hide_changes_nothing() -> None:
    for masked, plain in zip(_records().map(mask_labels({})), _records(), strict=True):
        np.testing.assert_array_equal(masked["labels"], plain["labels"])


def test_shapes_stay_static() -> None:
    dataset = _records().map(mask_labels({"a": _flags(1)}))
    assert dataset.element_spec["labels"].shape == (NUM_FINDINGS,)


def test_an_array_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(24,\) \(study a\)"):
        mask_labels({"a": np.zeros(24, np.bool_)})
