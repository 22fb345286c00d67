import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.records.example import parse_features, serialize_example

FLOATS = st.lists(st.floats(width=32), max_size=5)
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)
FEATURES = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        st.lists(st.binary(max_size=9), max_size=4),
        FLOATS.map(lambda values: np.array(values, np.float32)),
        INTEGERS.map(lambda values: np.array(values, np.int64)),
    ),
    max_size=6,
)


def _feature(values: list[bytes] | np.ndarray) -> tf.train.Feature:
    if not isinstance(values, np.ndarray):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if values.dtype.kind == "f":
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


@given(FEATURES)
def test_the_bytes_are_those_of_tensorflows_own_class(features: dict) -> None:
    expected = tf.train.Example(
        features=tf.train.Features(feature={name: _feature(values) for name, values in features.items()})
    )
    assert serialize_example(features) == expected.SerializeToString(deterministic=True)


@given(FEATURES)
def test_what_is_parsed_is_what_was_written(features: dict) -> None:
    found = parse_features(serialize_example(features))
    assert set(found) == set(features)
    for name, values in features.items():
        np.testing.assert_array_equal(found[name], list(values))


def test_bytes_that_are_no_example_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tf\.train\.Example"):
        parse_features(b"\xff\xff\xff")
