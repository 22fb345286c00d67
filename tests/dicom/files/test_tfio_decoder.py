"""What holds without tensorflow-io; `tests/tfio` compares its pixels."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumbar_tf.dicom.files import tfio_decoder
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.reasons import RefusedError, RejectReason

PIXELS = np.arange(48, dtype=np.uint16).reshape(6, 8)


def decode(path: Path) -> Any:
    image = open_image(path.read_bytes())
    return tfio_decoder.decode_frame_with_tfio(image, image.frames[0])


@pytest.mark.skipif(bool(importlib.util.find_spec("tensorflow_io")), reason="tensorflow-io is installed")
def test_where_it_is_absent_it_says_what_to_install(write_dicom: Callable[..., Path], tmp_path: Path) -> None:
    expected = r"TensorFlow up to 2.17 .* pip install 'lumbar_tf\[tfio\]'.*No module named 'tensorflow_io'"
    with pytest.raises(ValueError, match=expected):
        tfio_decoder.probe()
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
def test_known_faults_are_refused_before_it_is_loaded(
    write_dicom: Callable[..., Path], tmp_path: Path, tags: dict[str, Any], word: str
) -> None:
    path = write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS, **tags)
    with pytest.raises(RefusedError, match=word) as caught:
        decode(path)
    assert caught.value.reason is RejectReason.DECODER_REFUSED


@pytest.mark.parametrize("answer", [np.zeros(0), np.zeros((1, 6, 7, 1)), np.zeros((2, 6, 8, 1))])
def test_an_answer_of_another_shape_is_refused(
    write_dicom: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(tfio_decoder, "_load", lambda: lambda data: answer.astype(np.uint16))
    with pytest.raises(RefusedError, match="shape") as caught:
        decode(write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS))
    assert caught.value.reason is RejectReason.DECODER_REFUSED


def test_an_error_of_the_op_is_a_refusal_without_its_text(
    write_dicom: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes) -> None:
        raise OSError("DOE^JANE")

    monkeypatch.setattr(tfio_decoder, "_load", lambda: fail)
    with pytest.raises(RefusedError, match=r"OSError") as caught:
        decode(write_dicom(tmp_path / "1.2" / "1.3" / "1.dcm", PIXELS))
    assert "DOE" not in str(caught.value)
