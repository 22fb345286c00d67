"""Decoding of every supported format: generated files, and real ones in many encodings against references."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.spatial import PixelToReferenceTransformer
from pydicom import uid

from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.geometry import pixel_to_patient
from tests.dicom import made_files
from tests.dicom.made_files import make_enhanced, make_file, make_pixels

ALL = (*made_files.NATIVE, *made_files.LOSSLESS)


def _decode(data: bytes) -> np.ndarray:
    image = open_image(data)
    return np.stack([decode_frame(image, frame) for frame in image.frames])


def _read(path: Path) -> np.ndarray:
    return _decode(path.read_bytes())[0]


@pytest.mark.parametrize("syntax", ALL)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_lossless_pixels_are_decoded_exactly(syntax: str, dtype: type) -> None:
    pixels = make_pixels(bits=8 if dtype is np.uint8 else 12).astype(dtype)
    if dtype is np.int16:
        pixels -= 2000
    decoded = _decode(make_file(pixels, syntax=syntax))[0]
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == dtype


@pytest.mark.parametrize("syntax", made_files.LOSSY)
def test_lossy_pixels_are_decoded_within_a_tolerance(syntax: str) -> None:
    pixels = make_pixels(64, 48)
    if syntax == uid.JPEGBaseline8Bit:
        pixels = (pixels >> 4).astype(np.uint8)
    decoded = _decode(make_file(pixels, syntax=syntax))[0]
    assert decoded.dtype == pixels.dtype
    assert np.abs(decoded.astype(int) - pixels).max() <= made_files.LOSSY_TOLERANCE


@pytest.mark.parametrize("syntax", ALL)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3)])
def test_odd_sizes_are_decoded_exactly(syntax: str, shape: tuple[int, int]) -> None:
    for dtype in (np.uint8, np.uint16):
        pixels = make_pixels(*shape, bits=8).astype(dtype)
        if syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.JPEG2000Lossless) and min(shape) < 2:
            continue  # the encoders' own wavelets need more
        np.testing.assert_array_equal(_decode(make_file(pixels, syntax=syntax))[0], pixels)


@pytest.mark.parametrize("syntax", ALL)
def test_frames_of_an_enhanced_file_are_decoded_exactly(syntax: str) -> None:
    frames = np.stack([make_pixels(seed=seed) for seed in range(3)])
    decoded = _decode(make_enhanced(frames, syntax=syntax))
    for index in range(3):
        np.testing.assert_array_equal(decoded[index], frames[index] * (1.0 + index) - 10.0 * index)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize("has_offset_table", [True, False])
def test_frames_in_several_fragments_are_decoded_exactly(syntax: str, has_offset_table: bool) -> None:
    frames = np.stack([make_pixels(seed=seed) for seed in range(3)])
    data = make_enhanced(frames, syntax=syntax, fragments_per_frame=3, has_offset_table=has_offset_table)
    np.testing.assert_array_equal(_decode(data)[0], frames[0])
    np.testing.assert_array_equal(_decode(data)[2], frames[2] * 3.0 - 20)


@pytest.mark.parametrize("number", range(1, 10))
def test_one_slice_in_seven_syntaxes_has_the_same_pixels(shared_data: Path, number: int) -> None:
    folder = shared_data / "formats" / "dcm_qa_ts" / "In"
    # The first file is uncompressed little endian: numpy alone can read it.
    dataset = pydicom.dcmread(folder / "1.dcm")
    reference = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
    np.testing.assert_array_equal(_read(folder / f"{number}.dcm"), reference)


def _reference(folder: Path, image: str) -> tuple[np.ndarray, float, float]:
    """Returns stored values, slope and intercept of NEMA's uncompressed file, read without the package."""
    dataset = pydicom.dcmread(folder / f"{image}_UNC.dcm")
    kind = "<i2" if dataset.PixelRepresentation else "<u2"
    stored = np.frombuffer(dataset.PixelData, kind).reshape(dataset.Rows, dataset.Columns)
    return stored, float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))


def _stored(path: Path, slope: float, intercept: float) -> np.ndarray:
    return np.rint((_read(path).astype(float) - intercept) / slope)


@pytest.mark.parametrize("image", ["MR1", "MR4"])
@pytest.mark.parametrize("encoding", ["UNC", "JPLL", "J2KR", "JLSL", "RLE"])
def test_lossless_nema_files_equal_their_reference(shared_data: Path, image: str, encoding: str) -> None:
    folder = shared_data / "formats" / "nema_wg04"
    stored, slope, intercept = _reference(folder, image)
    np.testing.assert_array_equal(_stored(folder / f"{image}_{encoding}.dcm", slope, intercept), stored)


@pytest.mark.parametrize(("image", "tolerance"), [("MR1", 400), ("MR4", 64)])
@pytest.mark.parametrize("encoding", ["JPLY", "J2KI", "JLSN"])
def test_lossy_nema_files_are_near_their_reference(
    shared_data: Path, image: str, encoding: str, tolerance: int
) -> None:
    folder = shared_data / "formats" / "nema_wg04"
    stored, slope, intercept = _reference(folder, image)
    difference = _stored(folder / f"{image}_{encoding}.dcm", slope, intercept) - stored
    assert 0 < np.abs(difference).max() <= tolerance


ENHANCED = ["Philips/IM_0027_fMAP", *(f"Siemens/XA10/6_{number}" for number in range(1, 5))]


@pytest.mark.parametrize("name", ENHANCED)
def test_positions_of_enhanced_frames_equal_those_of_highdicom(shared_data: Path, name: str) -> None:
    path = shared_data / "formats" / "dcm_qa_enh" / "In" / f"{name}.dcm"
    image, dataset = open_image(path.read_bytes()), pydicom.dcmread(path)
    assert len(image.frames) == dataset.NumberOfFrames
    for frame in image.frames:
        place = PixelToReferenceTransformer.for_image(dataset, frame_number=frame.index + 1)
        geometry = frame.geometry
        corners = [(0, 0), (geometry.columns - 1, 0), (0, geometry.rows - 1)]
        np.testing.assert_allclose(
            [pixel_to_patient(geometry, corner) for corner in corners],
            place(np.array(corners)),  # (column, row) too
            atol=1e-4,
        )
        assert frame.instance_number == frame.index + 1


@pytest.mark.parametrize("name", ENHANCED)
def test_enhanced_pixels_are_those_of_pydicom(shared_data: Path, name: str) -> None:
    path = shared_data / "formats" / "dcm_qa_enh" / "In" / f"{name}.dcm"
    dataset = pydicom.dcmread(path)
    groups = dataset.PerFrameFunctionalGroupsSequence
    for pixels, stored, group in zip(_decode(path.read_bytes()), dataset.pixel_array, groups, strict=True):
        (rescale,) = group.get("PixelValueTransformationSequence", None) or [{}]
        slope = float(rescale.get("RescaleSlope", 1))
        np.testing.assert_allclose(
            pixels, stored * slope + float(rescale.get("RescaleIntercept", 0)), rtol=1e-6, atol=1e-3
        )
