"""Pixels of tensorflow-io compared with those of the default decoder (`make test-tfio`)."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from lumbar_tf.dicom.files import decoders
from lumbar_tf.dicom.files.decoders import Decoder, decode_frame, frame_decoder
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

WriteDicom = Callable[..., Path]
Change = Callable[[pydicom.Dataset], None]

QA_NAMES = [f"{number}.dcm" for number in range(1, 10)]
NEMA_CODINGS = ["UNC", "RLE", "JPLL", "JLSL", "J2KR", "JPLY", "JLSN", "J2KI"]
LOSSY_CODINGS = ["JPLY", "JLSN", "J2KI"]


def decode_with_both(data: bytes) -> tuple[NDArray[Any], NDArray[Any]]:
    image = open_image(data)
    return decode_frame(image, image.frames[0]), decode(data)


def decode(data: bytes) -> NDArray[Any]:
    image = open_image(data)
    return frame_decoder(Decoder.TFIO)(image, image.frames[0])


def save(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def refusal(data: bytes) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        decode(data)
    return caught.value


def test_the_ops_load_in_this_environment() -> None:
    assert frame_decoder(Decoder.TFIO) is decoders.decode_frame_with_tfio


@pytest.mark.parametrize("name", QA_NAMES)
def test_a_siemens_slice_in_seven_syntaxes_is_the_same(shared_data: Path, name: str) -> None:
    data = (shared_data / "formats" / "dcm_qa_ts" / "In" / name).read_bytes()
    ours, theirs = decode_with_both(data)
    assert ours.dtype == theirs.dtype == np.uint16
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("coding", NEMA_CODINGS)
def test_a_philips_slice_without_its_rescale_is_the_same(shared_data: Path, coding: str) -> None:
    dataset = pydicom.dcmread(shared_data / "formats" / "nema_wg04" / f"MR4_{coding}.dcm")
    assert "slope" in str(refusal(save(dataset)))
    del dataset.RescaleSlope, dataset.RescaleIntercept
    ours, theirs = decode_with_both(save(dataset))
    # The two use different libraries, and lossy decoders may round differently in the last step.
    assert np.abs(ours.astype(int) - theirs).max() <= (1 if coding in LOSSY_CODINGS else 0)


@pytest.mark.parametrize("coding", [coding for coding in NEMA_CODINGS if coding != "JPLY"])
def test_a_signed_toshiba_slice_is_refused(shared_data: Path, coding: str) -> None:
    data = (shared_data / "formats" / "nema_wg04" / f"MR1_{coding}.dcm").read_bytes()
    error = refusal(data)
    assert (error.reason, "signed" in str(error)) == (RejectReason.DECODER_REFUSED, True)


def test_a_toshiba_slice_that_was_made_unsigned_is_the_same(shared_data: Path) -> None:
    ours, theirs = decode_with_both((shared_data / "formats" / "nema_wg04" / "MR1_JPLY.dcm").read_bytes())
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_enhanced_files_are_refused(shared_data: Path) -> None:
    paths = sorted((shared_data / "formats" / "dcm_qa_enh").rglob("*.dcm"))
    assert len(paths) == 5
    for path in paths:
        error = refusal(path.read_bytes())
        assert (error.reason, "frames" in str(error)) == (RejectReason.DECODER_REFUSED, True)


@pytest.fixture
def picture() -> NDArray[np.uint16]:
    """12-bit pixels [24, 20]: smooth, with some noise, and both ends of the range."""
    random = np.random.default_rng(7)
    ramp = np.add.outer(np.arange(24) * 90, np.arange(20) * 95) + random.integers(0, 60, (24, 20))
    ramp[0, 0], ramp[-1, -1] = 0, 4095
    return ramp.clip(0, 4095).astype(np.uint16)


@pytest.fixture
def make_file(write_dicom: WriteDicom, tmp_path: Path, picture: NDArray[np.uint16]) -> Callable[..., bytes]:
    """A maker of files with `picture` in them: `make_file(change, PixelRepresentation=1, ...)`."""

    def make(change: Change | None = None, **tags: Any) -> bytes:
        path = write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", picture, BitsStored=12, HighBit=11, **tags)
        dataset = pydicom.dcmread(path)
        if change is not None:
            change(dataset)
        return save(dataset)

    return make


def compress(syntax: uid.UID, encode: Callable[[NDArray[Any]], bytes]) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        stream = encode(np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns))
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


def set_syntax(syntax: uid.UID) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    return change


def put_rubbish_above_the_stored_bits(dataset: pydicom.Dataset) -> None:
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") | 0xA000).tobytes()


def use_eight_bits(dataset: pydicom.Dataset) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") >> 4).astype(np.uint8).tobytes()


SOUND: dict[str, Change] = {
    "explicit": lambda dataset: None,
    "implicit": set_syntax(uid.ImplicitVRLittleEndian),
    "deflated": set_syntax(uid.DeflatedExplicitVRLittleEndian),
    "rle": lambda dataset: dataset.compress(uid.RLELossless),
    "jpeg_ls": compress(uid.JPEGLSLossless, imagecodecs.jpegls_encode),
    "jpeg_2000": compress(
        uid.JPEG2000Lossless,
        lambda pixels: imagecodecs.jpeg2k_encode(
            pixels, codecformat="j2k", reversible=True, bitspersample=12
        ),
    ),
    "rubbish": put_rubbish_above_the_stored_bits,
    "eight_bits": use_eight_bits,
}


@pytest.mark.parametrize("name", SOUND)
def test_files_made_here_are_the_same(make_file: Callable[..., bytes], name: str) -> None:
    ours, theirs = decode_with_both(make_file(SOUND[name]))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(theirs, ours)
    assert np.ptp(ours) > 200


def test_a_file_without_a_preamble_is_the_same(make_file: Callable[..., bytes]) -> None:
    ours, theirs = decode_with_both(make_file()[132:])
    np.testing.assert_array_equal(theirs, ours)


def add_an_overlay(dataset: pydicom.Dataset) -> None:
    dataset.add_new(0x60000010, "US", dataset.Rows)
    dataset.add_new(0x60000011, "US", dataset.Columns)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000050, "SS", [1, 1])
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60000102, "US", 0)
    dataset.add_new(0x60003000, "OW", bytes([0xFF]) * (dataset.Rows * dataset.Columns // 8))


def set_tags(**tags: Any) -> Change:
    def change(dataset: pydicom.Dataset) -> None:
        for keyword, value in tags.items():
            setattr(dataset, keyword, value)

    return change


#: Files that the op decodes wrongly, and the word of the message.
WRONG: dict[str, tuple[Change, str]] = {
    "signed": (set_tags(PixelRepresentation=1, BitsStored=13, HighBit=12), "signed"),
    "slope": (set_tags(RescaleSlope="2.5", RescaleIntercept="0"), "slope"),
    "intercept": (set_tags(RescaleSlope="1", RescaleIntercept="-1000"), "intercept"),
    "monochrome1": (set_tags(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1"),
    "inverse": (set_tags(PresentationLUTShape="INVERSE"), "INVERSE"),
    "overlay": (add_an_overlay, "overlays"),
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_come_out_wrong_are_rejected(make_file: Callable[..., bytes], name: str) -> None:
    change, word = WRONG[name]
    data = make_file(change)
    error = refusal(data)
    assert (error.reason, word in str(error)) == (RejectReason.DECODER_REFUSED, True)
    # The op itself returns other pixels, without an error.
    image = open_image(data)
    theirs = decoders.load_tfio_op()(data)[0, :, :, 0]
    assert not np.array_equal(theirs, decode_frame(image, image.frames[0]))


def test_unreadable_files_are_rejected_and_never_empty(make_file: Callable[..., bytes]) -> None:
    syntax = compress(uid.HTJ2KLossless, lambda pixels: imagecodecs.htj2k_encode(pixels, reversible=True))
    try:
        data = make_file(syntax)
    except Exception:
        pytest.skip("imagecodecs was built without an HTJ2K encoder")
    assert refusal(data).reason is RejectReason.DECODER_REFUSED


def test_an_empty_result_is_rejected(
    make_file: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "load_tfio_op", lambda: lambda data: np.zeros(0, np.uint16))
    error = refusal(make_file())
    assert (error.reason, "(0,)" in str(error)) == (RejectReason.DECODER_REFUSED, True)


@pytest.mark.parametrize("name", ["4.dcm", "5.dcm", "6.dcm", "7.dcm", "8.dcm", "9.dcm"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.98])
def test_a_code_stream_that_is_cut_is_refused(shared_data: Path, name: str, kept: float) -> None:
    dataset = pydicom.dcmread(shared_data / "formats" / "dcm_qa_ts" / "In" / name)
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([stream[: int(len(stream) * kept)]])
    assert refusal(save(dataset)).reason in (
        RejectReason.TRUNCATED,
        RejectReason.UNDECODABLE,
        RejectReason.DECODER_REFUSED,
    )
