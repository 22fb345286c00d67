"""DICOM files of multipart responses, for any division into blocks."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbar_tf.interop.dicomweb_http import write_instance
from lumbar_tf.interop.interfaces import PacsError, PacsFault

KIND = 'multipart/related; type="application/dicom"; boundary="b-7"'


def _message(data: bytes) -> bytes:
    return b"--b-7\r\nContent-Type: application/dicom\r\nContent-Length: 9\r\n\r\n" + data + b"\r\n--b-7--"


def _write(path: Path, kind: str, blocks: list[bytes], limit: int = 1000) -> bytes:
    write_instance(path, kind, blocks, request="image 1", max_bytes=limit)
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(min_size=1, max_size=60), st.integers(1, 40), st.sampled_from([b"", b"\r\n--b", b"\r\n"]))
def test_the_file_is_extracted_unchanged(tmp_path: Path, data: bytes, size: int, near: bytes) -> None:
    data = data + near + data
    message = _message(data)
    blocks = [message[at : at + size] for at in range(0, len(message), size)]
    assert _write(tmp_path / "1", KIND, blocks) == data


def test_a_plain_file_is_accepted(tmp_path: Path) -> None:
    assert _write(tmp_path / "1", "application/dicom", [b"DI", b"CM"]) == b"DICM"


@pytest.mark.parametrize(
    ("kind", "blocks", "fault"),
    [
        ("text/html", [b"<p>Sign in"], PacsFault.MALFORMED),
        ("", [b"what"], PacsFault.MALFORMED),
        ("multipart/related", [_message(b"data")], PacsFault.MALFORMED),
        (KIND, [], PacsFault.MALFORMED),
        (KIND, [b"--other\r\n\r\ndata\r\n--other--"], PacsFault.MALFORMED),
        (KIND, [b"--b-7\r\nno end of headers"], PacsFault.MALFORMED),
        (KIND, [b"x" * 9000] * 9, PacsFault.MALFORMED),
        (KIND, [_message(b"data")[:-12]], PacsFault.MALFORMED),
        (KIND, [_message(b"")], PacsFault.MALFORMED),
        (
            KIND,
            [_message(b"data")[:-2] + b"\r\nContent-Type: application/dicom\r\n\r\nmore"],
            PacsFault.MALFORMED,
        ),
        (KIND, [_message(b"x" * 1001)], PacsFault.TOO_LARGE),
        ("application/dicom", [b"x" * 600, b"x" * 600], PacsFault.TOO_LARGE),
    ],
)
def test_other_responses_than_a_single_file_are_refused(
    tmp_path: Path, kind: str, blocks: list[bytes], fault: PacsFault
) -> None:
    with pytest.raises(PacsError) as caught:
        _write(tmp_path / "1", kind, blocks)
    assert caught.value.fault is fault
