import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.pixels import apply_rescale

from lumbar_tf.dicom.files import decoders
from lumbar_tf.dicom.files.decoders import Decoder, decode_frame, decode_frame_with_tfio, frame_decoder
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.reasons import RejectedError, RejectReason
from tests.dicom.made_files import LOSSLESS, NATIVE, encode, make_enhanced, make_file, make_pixels


def _decode(data: bytes) -> np.ndarray:
    image = open_image(data)
    return decode_frame(image, image.frames[0])


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLosslessSV1])
@pytest.mark.parametrize(("slope", "intercept"), [("2.5", "-100"), ("1", "-1024"), ("0.25", "0")])
def test_rescale_equals_that_of_pydicom(syntax: str, slope: str, intercept: str) -> None:
    data = make_file(syntax=syntax, RescaleSlope=slope, RescaleIntercept=intercept)
    dataset = pydicom.dcmread(io.BytesIO(make_file(RescaleSlope=slope, RescaleIntercept=intercept)))
    decoded = _decode(data)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, apply_rescale(dataset.pixel_array, dataset), rtol=1e-6)


def test_an_identity_rescale_keeps_integers() -> None:
    assert _decode(make_file(RescaleSlope=1, RescaleIntercept=0)).dtype == np.uint16


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
@pytest.mark.parametrize(
    ("dtype", "bits", "largest"),
    [(np.uint8, 8, 255), (np.uint16, 12, 4095), (np.uint16, 16, 65535), (np.int16, 16, -1)],
)
def test_monochrome1_is_inverted_over_the_stored_range(
    syntax: str, dtype: type, bits: int, largest: int
) -> None:
    pixels = make_pixels(bits=min(bits, 12)).astype(dtype)
    inverted = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": bits, "HighBit": bits - 1}
    decoded = _decode(make_file(pixels, syntax=syntax, **inverted))
    np.testing.assert_array_equal(decoded, (largest - pixels.astype(int)).astype(dtype))
    assert decoded.dtype == dtype
    # Inverted first, then rescaled: slope and intercept apply to displayed values.
    rescaled = _decode(make_file(pixels, syntax=syntax, **inverted, RescaleSlope=2, RescaleIntercept=3))
    np.testing.assert_array_equal(rescaled, decoded * 2.0 + 3)


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless, uid.JPEGLosslessSV1, uid.JPEG2000Lossless])
def test_overlays_in_unused_bits_are_ignored(syntax: str) -> None:
    pixels = make_pixels()
    with_overlay = pixels | (np.arange(pixels.size).reshape(pixels.shape) % 16 << 12).astype(np.uint16)
    data = make_file(with_overlay, syntax=syntax, streams=[encode(with_overlay, syntax, bits=16)])
    np.testing.assert_array_equal(_decode(data), pixels)


@pytest.mark.parametrize("syntax", [*NATIVE, uid.RLELossless, uid.JPEGLosslessSV1])
def test_signs_of_fewer_bits_are_extended(syntax: str) -> None:
    values = (make_pixels().astype(np.int16) - 2000).clip(-2048, 2047)
    # The bits above the 12 belong to another image.
    container = (values & 0x0FFF) | np.int16(0x5000)
    data = make_file(container, syntax=syntax, BitsStored=12, HighBit=11)
    decoded = _decode(data)
    np.testing.assert_array_equal(decoded, values)
    assert decoded.dtype == np.int16


def test_overlay_planes_of_the_header_are_ignored() -> None:
    planes = {"OverlayRows": 12, "OverlayColumns": 16}
    data = make_file()
    dataset = pydicom.dcmread(io.BytesIO(data))
    for element, (vr, value) in {
        0x60000010: ("US", planes["OverlayRows"]),
        0x60000011: ("US", planes["OverlayColumns"]),
        0x60003000: ("OW", b"\xff" * 24),
    }.items():
        dataset.add_new(element, vr, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset)
    np.testing.assert_array_equal(_decode(stream.getvalue()), make_pixels())


def test_big_endian_words_of_8_bit_pixels_are_swapped_back() -> None:
    pixels = make_pixels(5, 3, bits=8).astype(np.uint8)
    stored = pixels.tobytes() + b"\0"
    swapped = np.frombuffer(stored, ">u2").astype("<u2").tobytes()
    data = make_file(pixels, syntax=uid.ExplicitVRBigEndian, streams=[swapped])
    start = data.rindex(b"\x7f\xe0\x00\x10OB")
    np.testing.assert_array_equal(_decode(data[: start + 4] + b"OW" + data[start + 6 :]), pixels)


def test_big_endian_frames_of_odd_size_share_a_word() -> None:
    frames = np.stack([make_pixels(5, 3, seed=seed, bits=8).astype(np.uint8) for seed in range(3)])
    stored = frames.tobytes() + b"\0"
    swapped = np.frombuffer(stored, ">u2").astype("<u2").tobytes()
    data = make_enhanced(frames, syntax=uid.ExplicitVRBigEndian, streams=[swapped])
    start = data.rindex(b"\x7f\xe0\x00\x10OB")
    image = open_image(data[: start + 4] + b"OW" + data[start + 6 :])
    for frame in image.frames:
        expected = frames[frame.index] * frame.slope + frame.intercept
        np.testing.assert_array_equal(decode_frame(image, frame), expected)


def _with_vr(data: bytes, vr: bytes) -> bytes:
    start = data.rindex(b"\x7f\xe0\x00\x10OW") + 4
    return data[:start] + vr + data[start + 2 :]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bytes_have_no_byte_order(dtype: type) -> None:
    # PS3.5 section 8.1.1: OB is unaffected by the transfer syntax, so its 16-bit pixels begin with the lowest
    # byte. pydicom swaps them.
    pixels = make_pixels(bits=15).astype(dtype)
    tags = {"BitsStored": 16, "HighBit": 15}
    as_bytes = make_file(
        pixels, syntax=uid.ExplicitVRBigEndian, streams=[pixels.astype("<i2").tobytes()], **tags
    )
    np.testing.assert_array_equal(_decode(_with_vr(as_bytes, b"OB")), pixels)
    np.testing.assert_array_equal(_decode(make_file(pixels, syntax=uid.ExplicitVRBigEndian, **tags)), pixels)


def test_bytes_that_were_swapped_nevertheless_are_rejected() -> None:
    data = _with_vr(make_file(syntax=uid.ExplicitVRBigEndian), b"OB")
    with pytest.raises(RejectedError) as caught:
        _decode(data)
    assert caught.value.reason is RejectReason.BAD_PIXEL_FORMAT


@pytest.mark.parametrize("name", ["017", "024"])
def test_real_pixels_in_bytes_equal_the_raw_ones(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "cases" / "pixels" / "big_endian_ob"
    expected = _decode((folder / f"{name}_raw.dcm").read_bytes())
    np.testing.assert_array_equal(_decode((folder / f"{name}_big.dcm").read_bytes()), expected)


def test_real_jpeg_ls_with_a_pad_byte_is_read(shared_data: Path) -> None:
    data = (shared_data.parent / "cases" / "pixels" / "jpeg_ls_padding" / "005_jls_near.dcm").read_bytes()
    image = open_image(data)
    padding = {image.body[ranges[-1][1] - 1] for ranges in image.pixel_ranges}
    assert not padding <= {0x00, 0xFF, 0xD9}
    assert [decode_frame(image, frame).shape for frame in image.frames] == [(256, 256)] * 19


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_noise_of_all_bits_is_decoded_exactly(syntax: str) -> None:
    # Extremes, runs and noise are difficult for codecs.
    pixels = np.random.default_rng(3).integers(0, 4096, (33, 29)).astype(np.uint16)
    pixels[:5], pixels[5:9], pixels[:, 4] = 0, 4095, np.arange(33) % 2 * 4095
    np.testing.assert_array_equal(_decode(make_file(pixels, syntax=syntax)), pixels)


def test_native_pixels_are_not_copied() -> None:
    image = open_image(make_file())
    assert np.shares_memory(decode_frame(image, image.frames[0]), np.frombuffer(image.data, np.uint8))


def test_the_words_of_the_command_line() -> None:
    assert [decoder.value for decoder in Decoder] == ["pydicom", "tfio"]


def test_the_default_decoder_is_imagecodecs() -> None:
    assert frame_decoder(Decoder.PYDICOM) is decode_frame


def test_the_tfio_decoder_is_checked_before_it_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "load_tfio_op", lambda: lambda data: data)
    assert frame_decoder(Decoder.TFIO) is decode_frame_with_tfio

    def fail() -> None:
        raise NotImplementedError("undefined symbol")

    monkeypatch.setattr(decoders, "load_tfio_op", fail)
    with pytest.raises(ValueError, match="NotImplementedError: undefined symbol"):
        frame_decoder(Decoder.TFIO)
