import pytest

from lumbar_tf.dicom.files import pixels, tfio_decoder
from lumbar_tf.dicom.files.decoders import Decoder, frame_decoder


def test_the_words_of_the_command_line() -> None:
    assert [each.value for each in Decoder] == ["pydicom", "tfio"]


def test_the_default_decoder_is_the_one_of_imaging() -> None:
    assert frame_decoder(Decoder.PYDICOM) is pixels.decode_frame


def test_the_second_decoder_is_probed_before_it_is_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfio_decoder, "_load", lambda: lambda data: data)
    assert frame_decoder(Decoder.TFIO) is tfio_decoder.decode_frame_with_tfio

    def fail() -> None:
        raise NotImplementedError("undefined symbol")

    monkeypatch.setattr(tfio_decoder, "_load", fail)
    with pytest.raises(ValueError, match="NotImplementedError: undefined symbol"):
        frame_decoder(Decoder.TFIO)
