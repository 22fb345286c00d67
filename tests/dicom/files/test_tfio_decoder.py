"""The tfio decoder without tensorflow-io; `tests/tfio` compares its pixels."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.dicom.files import decoders
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.reasons import RejectedError, RejectReason

PIXELS = np.arange(48, dtype=np.uint16).reshape(6, 8)


def decode(path: Path) -> Any:
    image = open_image(path.read_bytes())
    return decoders.decode_frame_with_tfio(image, image.frames[0])


@pytest.mark.skipif(bool(importlib.util.find_spec("tensorflow_io")), reason="tensorflow-io is installed")
def test_without_tensorflow_io_the_error_lists_what_to_install(
    write_dicom: Callable[..., Path], tmp_path: Path
) -> None:
    expected = r"TensorFlow up to 2.17 .* pip install 'lumbar_tf\[tfio\]'.*No module named 'tensorflow_io'"
    with pytest.raises(ValueError, match=expected):
        decoders.check_tfio_available()
    with pytest.raises(ValueError, match=expected):
        decode(write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS))


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"PixelRepresentation": 1}, "signed"),
        ({"RescaleSlope": "2", "RescaleIntercept": "0"}, "slope 2"),
        ({"RescaleSlope": "1", "RescaleIntercept": "-1"}, "intercept -1"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"PresentationLUTShape": "INVERSE"}, "INVERSE"),
    ],
)
def test_files_that_it_decodes_wrongly_are_rejected_before_it_is_loaded(
    write_dicom: Callable[..., Path], tmp_path: Path, tags: dict[str, Any], word: str
) -> None:
    path = write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS, **tags)
    with pytest.raises(RejectedError, match=word) as caught:
        decode(path)
    assert caught.value.reason is RejectReason.DECODER_REFUSED


@pytest.mark.parametrize("answer", [np.zeros(0), np.zeros((1, 6, 7, 1)), np.zeros((2, 6, 8, 1))])
def test_pixels_of_another_shape_are_rejected(
    write_dicom: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(decoders, "load_tfio_op", lambda: lambda data: answer.astype(np.uint16))
    with pytest.raises(RejectedError, match="shape") as caught:
        decode(write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS))
    assert caught.value.reason is RejectReason.DECODER_REFUSED


def test_an_error_of_the_op_rejects_the_file_without_the_error_text(
    write_dicom: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes) -> None:
        raise OSError("DOE^JANE")

    monkeypatch.setattr(decoders, "load_tfio_op", lambda: fail)
    with pytest.raises(RejectedError, match=r"OSError") as caught:
        decode(write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS))
    assert "DOE" not in str(caught.value)
