"""Planes that the graph does not grade: those without slices, and those with numbers that are none."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from lumbar_tf.bundle.members import has_slices
from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.schema import encode_plane

#: The numbers that pixels, windows and places are computed from (`tfrecords/README.md`).
FEATURES = (
    "series/low",
    "series/high",
    "slices/scale",
    "slices/offset",
    "slices/position",
    "slices/row_direction",
    "slices/column_direction",
    "slices/row_spacing_mm",
    "slices/column_spacing_mm",
)


@pytest.fixture
def record(make_slice: Callable[..., Slice]) -> bytes:
    """A plane of three slices, without labels and points (which are NaN)."""
    return encode_plane(
        "1", Plane.SAGITTAL_T2, [make_slice((float(x), 0.0, 0.0), instance_number=x) for x in range(3)]
    )


def _spoil(record: bytes, name: str, value: float) -> bytes:
    example = tf.train.Example.FromString(record)
    example.features.feature[name].float_list.value[-1] = value
    return bytes(example.SerializeToString())


def test_a_sound_record_has_slices_and_an_empty_one_has_none(record: bytes) -> None:
    assert has_slices(tf.constant([record, b"", record])).numpy().tolist() == [True, False, True]


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_plane_with_a_number_that_is_none_counts_as_missing_and_its_companions_do_not(
    record: bytes, name: str, value: float
) -> None:
    studies = tf.constant([record, _spoil(record, name, value), b"", record])
    assert has_slices(studies).numpy().tolist() == [True, False, False, True]


def test_the_answer_is_the_same_in_a_graph(record: bytes) -> None:
    studies = tf.constant([_spoil(record, "series/low", np.nan), record])
    assert tf.function(has_slices)(studies).numpy().tolist() == [False, True]
