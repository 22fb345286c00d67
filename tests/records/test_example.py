import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.records.example import example_pieces, parse_example_features, serialize_example

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
def test_tensorflows_own_class_reads_the_same_and_writes_no_less(features: dict) -> None:
    expected = tf.train.Example(
        features=tf.train.Features(feature={name: _feature(values) for name, values in features.items()})
    )
    serialized = serialize_example(features)
    # repr: NaN equals no NaN.
    assert repr(tf.train.Example.FromString(serialized)) == repr(expected)
    assert len(serialized) == expected.ByteSize()


@given(FEATURES)
def test_the_order_of_features_is_that_of_their_names(features: dict) -> None:
    turned = {name: features[name] for name in reversed(features)}
    assert serialize_example(turned) == serialize_example(features)


def test_large_values_stay_where_they_lie() -> None:
    pixels = np.arange(100_000, dtype=np.uint8)
    pieces = example_pieces({"b": [b"x", pixels], "c": np.ones(2)})
    assert sum(piece is pixels for piece in pieces) == 1
    assert b"".join(pieces) == serialize_example({"c": np.ones(2), "b": [b"x", pixels.tobytes()]})


@given(FEATURES)
def test_what_is_parsed_is_what_was_written(features: dict) -> None:
    found = parse_example_features(serialize_example(features))
    assert set(found) == set(features)
    for name, values in features.items():
        np.testing.assert_array_equal(found[name], list(values))


def test_bytes_that_are_no_example_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tf\.train\.Example"):
        parse_example_features(b"\xff\xff\xff")
