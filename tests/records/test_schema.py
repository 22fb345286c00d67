from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.dicom.study import Slice
from lumbar_tf.labels import Plane
from lumbar_tf.records.parsing import decode_image, parse_example
from lumbar_tf.records.schema import SCHEMA_VERSION, PixelEncoding, encode_plane

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(0.2)), float(np.sin(0.2)))


def _values(record: dict[str, tf.Tensor], index: int) -> np.ndarray:
    stored = decode_image(record, index, (tf.zeros([], tf.int64), record["slices/rows"][index]))
    return (
        stored.numpy().astype(np.float64) * record["slices/scale"][index].numpy()
        + record["slices/offset"][index].numpy()
    )


@pytest.mark.parametrize("codec", PixelEncoding)
def test_round_trip_keeps_pixels_geometry_and_order(
    make_slice: Callable[..., Slice], codec: PixelEncoding
) -> None:
    slices = [
        make_slice((9.0, 2.0, 3.0), series_id="20", instance_number=1),
        make_slice((4.0, 2.0, 3.0), series_id="20", instance_number=2),
        make_slice((1.0, 0.5, 0.0), series_id="10", instance_number=7),
    ]
    labels = np.arange(25) % 4 - 1
    points = np.full((25, 3), np.nan, np.float32)
    points[3] = (1.5, -2.5, 30.0)
    record = parse_example(
        encode_plane("77", Plane.SAGITTAL_T2, slices, labels=labels, points=points, codec=codec)
    )
    assert record["schema_version"] == SCHEMA_VERSION.encode()
    assert (record["study_id"], record["plane"]) == (b"77", b"sagittal_t2")
    assert record["series/id"].numpy().tolist() == [b"10", b"20"]
    assert record["slices/series"].numpy().tolist() == [0, 1, 1]
    assert record["slices/instance_number"].numpy().tolist() == [7, 2, 1]
    np.testing.assert_array_equal(record["labels"], labels)
    np.testing.assert_array_equal(record["points"], points)
    for index, original in enumerate([slices[2], slices[1], slices[0]]):
        np.testing.assert_array_equal(_values(record, index), original.pixels)
        geometry = SliceGeometry(
            *(tuple(record[f"slices/{name}"][index].numpy().tolist()) for name in ("position",)),
            tuple(record["slices/row_direction"][index].numpy().tolist()),
            tuple(record["slices/column_direction"][index].numpy().tolist()),
            float(record["slices/row_spacing_mm"][index]),
            float(record["slices/column_spacing_mm"][index]),
            int(record["slices/rows"][index]),
            int(record["slices/columns"][index]),
        )
        assert geometry == original.geometry


def test_groups_are_numbered_over_the_whole_record(make_slice: Callable[..., Slice]) -> None:
    slices = [
        make_slice((0, 0, z), orientation=orientation, series_id=series)
        for series in ("a", "b")
        for z, orientation in ((0.0, AXIAL), (3.0, AXIAL), (20.0, TILTED))
    ]
    record = parse_example(encode_plane("1", Plane.AXIAL_T2, slices))
    assert record["slices/group"].numpy().tolist() == [0, 0, 1, 2, 2, 3]


def test_input_order_does_not_change_the_bytes(make_slice: Callable[..., Slice]) -> None:
    slices = [make_slice((float(x), 0, 0), instance_number=x + 1) for x in range(5)]
    assert encode_plane("1", Plane.SAGITTAL_T1, slices) == encode_plane("1", Plane.SAGITTAL_T1, slices[::-1])


def test_an_empty_string_is_a_missing_plane() -> None:
    record = parse_example(tf.constant(""))
    assert record["slices/position"].shape == (0, 3)
    assert record["slices/start"].shape == record["slices/size"].shape == (0,)
    assert record["labels"].numpy().tolist() == [-1] * 25
    assert record["points"].shape == (25, 3)
    assert np.isnan(record["points"]).all()


def test_parses_the_same_inside_a_dataset(make_slice: Callable[..., Slice]) -> None:
    records = [encode_plane("1", Plane.SAGITTAL_T1, [make_slice()]), b""]
    counts = [
        int(tf.shape(record["slices/rows"])[0])
        for record in tf.data.Dataset.from_tensor_slices(records).map(parse_example)
    ]
    assert counts == [1, 0]


def _whole_numbers(kind: type) -> st.SearchStrategy[int]:
    """The whole range of an integer type; of floats, a range of 65535 that is not at zero."""
    if kind is np.float32:
        return st.integers(-30000, 35535)
    limits = np.iinfo(kind)
    return st.integers(int(limits.min), int(limits.max))


@settings(max_examples=60)
@given(
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.float32]).flatmap(
        lambda kind: hnp.arrays(kind, (3, 4), elements=_whole_numbers(kind))
    )
)
def test_whole_numbers_survive_exactly(pixels: np.ndarray) -> None:
    geometry = SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 3, 4)
    record = parse_example(encode_plane("1", Plane.SAGITTAL_T1, [Slice(geometry, pixels, "1", 1)]))
    np.testing.assert_array_equal(_values(record, 0), pixels)
    assert record["slices/scale"][0] == 1.0


@pytest.mark.filterwarnings("error")
@settings(max_examples=40)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-1e6, 1e6, width=32)))
def test_fractions_survive_within_half_a_step(pixels: np.ndarray) -> None:
    geometry = SliceGeometry((0, 0, 0), (0, 1, 0), (0, 0, -1), 1.0, 1.0, 3, 4)
    record = parse_example(encode_plane("1", Plane.SAGITTAL_T1, [Slice(geometry, pixels, "1", 1)]))
    span = float(pixels.max()) - float(pixels.min())
    # Half a step of 16 bits, and float32's own rounding of scale and offset. A range whose step would be no
    # normal float32 number (1.2e-38) is a constant image.
    tolerance = span / 65535 * 0.501 + np.abs(pixels).max() * 1e-6 + 65535 * 1.2e-38
    assert np.abs(_values(record, 0) - pixels).max() <= tolerance


def test_series_range_is_the_percentile_of_all_its_slices(make_slice: Callable[..., Slice]) -> None:
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 100, (40, 50)), rng.integers(500, 900, (40, 50))
    slices = [make_slice((0, 0, 0), pixels=dark), make_slice((4, 0, 0), pixels=bright)]
    record = parse_example(encode_plane("1", Plane.SAGITTAL_T1, slices))
    values = np.concatenate([dark.ravel(), bright.ravel()])
    low, high = np.quantile(values, [0.005, 0.995], method="inverted_cdf")
    assert (float(record["series/low"][0]), float(record["series/high"][0])) == (low, high)


@pytest.mark.parametrize("rows", [7, 256, 517, 1024])
def test_series_range_of_a_large_image_is_near_and_the_same_in_the_mirror(
    make_slice: Callable[..., Slice], rows: int
) -> None:
    pixels = np.random.default_rng(rows).gamma(2.0, 150.0, (rows, 300)).astype(np.uint16)
    ranges = []
    for image in (pixels, pixels[::-1], pixels[:, ::-1]):
        record = parse_example(encode_plane("1", Plane.SAGITTAL_T1, [make_slice(pixels=image)]))
        ranges.append((float(record["series/low"][0]), float(record["series/high"][0])))
    assert len(set(ranges)) == 1
    expected = np.quantile(pixels, [0.005, 0.995], method="inverted_cdf")
    # A tenth of the step from one value's rank to the next is the noise of so large a sample.
    np.testing.assert_allclose(ranges[0], expected, rtol=0.1 if rows > 7 else 0)


@pytest.mark.parametrize("pixels", [[[0.0, np.nan]], [[1.0, np.inf]]])
def test_pixels_that_are_not_finite_are_refused(make_slice: Callable[..., Slice], pixels: list) -> None:
    with pytest.raises(ValueError, match="finite"):
        encode_plane("1", Plane.SAGITTAL_T1, [make_slice(pixels=np.array(pixels))])


def test_labels_of_another_length_are_refused(make_slice: Callable[..., Slice]) -> None:
    with pytest.raises(ValueError, match=r"labels.*\(25,\)"):
        encode_plane("1", Plane.SAGITTAL_T1, [make_slice()], labels=[0, 1])
