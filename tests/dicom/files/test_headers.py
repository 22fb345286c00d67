import io
import struct

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.filewriter import write_dataset

from lumbar_tf.dicom.files import headers
from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.files.headers import parse_file, read_dataset_header
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import NATIVE, make_file, make_pixels

GOOD = make_file()


def _without_meta(syntax: str) -> bytes:
    """Returns the dataset without preamble and meta information, as some archives store it."""
    dataset = pydicom.dcmread(io.BytesIO(make_file(syntax=syntax)))
    stream = pydicom.filebase.DicomBytesIO()
    stream.is_implicit_VR = syntax == uid.ImplicitVRLittleEndian
    stream.is_little_endian = syntax != uid.ExplicitVRBigEndian
    write_dataset(stream, dataset)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", NATIVE)
def test_header_is_what_pydicom_reads(syntax: str) -> None:
    data = make_file(syntax=syntax)
    expected = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    dataset = read_dataset_header(data)
    assert dataset == expected
    assert dataset.file_meta == expected.file_meta
    assert "PixelData" not in dataset


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
)
def test_a_bare_dataset_is_read(syntax: str) -> None:
    data = _without_meta(syntax)
    assert not data.startswith(bytes(128))
    image = open_image(data)
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), make_pixels())


def test_a_file_without_preamble_is_read() -> None:
    for data in (GOOD[132:], make_file(syntax=uid.RLELossless)[132:]):
        image = open_image(data)
        np.testing.assert_array_equal(decode_frame(image, image.frames[0]), make_pixels())


def test_a_tiff_preamble_is_allowed() -> None:
    assert read_dataset_header(b"II*\0" + GOOD[4:]) == read_dataset_header(GOOD)


def test_the_position_of_the_pixel_data_is_found() -> None:
    file = parse_file(GOOD)
    assert file.pixels is not None
    assert (file.pixels.element, file.pixels.vr) == (0x0010, "OW")
    assert file.pixels.length == make_pixels().nbytes
    assert file.body[file.pixels.start :] == make_pixels().tobytes()
    assert file.body is GOOD  # not a copy


def test_pixel_data_in_a_sequence_are_not_the_image() -> None:
    icon = pydicom.Dataset()
    icon.Rows = icon.Columns = 2
    icon.BitsAllocated = 8
    icon.PixelData = b"icon"
    for is_undefined in (False, True):
        dataset = pydicom.dcmread(io.BytesIO(GOOD))
        dataset.IconImageSequence = [icon]
        dataset["IconImageSequence"].is_undefined_length = is_undefined
        dataset.IconImageSequence[0].is_undefined_length_sequence_item = is_undefined
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, dataset)
        image = open_image(stream.getvalue())
        np.testing.assert_array_equal(decode_frame(image, image.frames[0]), make_pixels())


def test_every_truncation_is_detected() -> None:
    # A truncated file is always rejected; after the preamble, the reason is the truncation.
    for size in range(132, len(GOOD)):
        with pytest.raises(RejectedError) as caught:
            open_image(GOOD[:size])
        assert caught.value.reason is RejectReason.TRUNCATED, size


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.DeflatedExplicitVRLittleEndian])
def test_every_truncation_of_compressed_pixels_is_detected(syntax: str) -> None:
    data = make_file(syntax=syntax)
    start = data.find(b"\xe0\x7f\x10\x00")
    # A deflated dataset may lose the byte that makes its length even.
    for size in range(start if start > 0 else 400, len(data) - 1):
        with pytest.raises(RejectedError) as caught:
            open_image(data[:size])
        assert caught.value.reason is RejectReason.TRUNCATED, size


def test_the_file_size_is_checked_before_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "MAX_FILE_BYTES", 1000)
    with pytest.raises(RejectedError) as caught:
        read_dataset_header(bytes(1001))
    assert caught.value.reason is RejectReason.TOO_LARGE


def test_the_header_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "MAX_HEADER_BYTES", len(GOOD) - make_pixels().nbytes + 8)
    assert read_dataset_header(GOOD) == pydicom.dcmread(io.BytesIO(GOOD), stop_before_pixels=True)
    monkeypatch.setattr(headers, "MAX_HEADER_BYTES", 400)
    with pytest.raises(RejectedError) as caught:
        read_dataset_header(GOOD)
    assert caught.value.reason is RejectReason.TOO_LARGE


def test_a_small_black_image_is_not_a_deflate_bomb() -> None:
    black = np.zeros((512, 512), np.uint16)
    data = make_file(black, syntax=uid.DeflatedExplicitVRLittleEndian)
    assert len(data) * 100 < black.nbytes
    image = open_image(data)
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), black)


def test_private_and_unknown_elements_are_skipped() -> None:
    start = GOOD.rindex(b"\xe0\x7f\x10\x00")
    private = struct.pack("<HH2sHI", 0x0029, 0x1010, b"UN", 0, 6) + b"secret"
    odd_vr = struct.pack("<HH2sH", 0x0029, 0x1011, b"ZZ", 4) + b"1234"
    image = open_image(GOOD[:start] + private + odd_vr + GOOD[start:])
    np.testing.assert_array_equal(decode_frame(image, image.frames[0]), make_pixels())
