"""One DICOM file out of a WADO-RS answer, onto the disk, in pieces.

PS3.18 section 10.4 answers with `multipart/related` (RFC 2387); an instance is its only part. Some archives
answer with the plain file.
"""

from collections.abc import Iterable, Iterator
from email.message import Message
from pathlib import Path

from lumbar_tf.interop.pacs_errors import PacsError, PacsFault

_MAX_PREAMBLE_BYTES = 16 << 10
_END_OF_HEADERS = b"\r\n\r\n"
_DICOM = "application/dicom"


def write_instance(
    path: Path, content_type: str, blocks: Iterable[bytes], *, what: str, max_bytes: int
) -> int:
    """Writes the DICOM file that an answer holds.

    Args:
        path: the file; what is there after an error is not whole.
        content_type: the answer's header Content-Type.
        blocks: its body.
        what: names it in messages.
        max_bytes: no larger file is written.

    Returns:
        Its size.

    Raises:
        PacsError: MALFORMED, or TOO_LARGE.
        OSError: the file cannot be written.
    """
    message = Message()
    message["Content-Type"] = content_type
    kind = message.get_content_type()
    boundary = message.get_param("boundary")
    if kind == "multipart/related" and isinstance(boundary, str) and boundary:
        content = _first_part(blocks, boundary.encode("latin-1", "replace"), what)
    elif kind == _DICOM:
        content = iter(blocks)
    else:
        raise PacsError(PacsFault.MALFORMED, f"{what} must come as {_DICOM}. Received: {kind!r}.")
    size = 0
    with path.open("wb") as file:
        for block in content:
            size += len(block)
            if size > max_bytes:
                raise PacsError(PacsFault.TOO_LARGE, f"{what} must have at most {max_bytes} bytes")
            file.write(block)
    if not size:
        raise PacsError(PacsFault.MALFORMED, f"{what} came without a byte")
    return size


def _first_part(blocks: Iterable[bytes], boundary: bytes, what: str) -> Iterator[bytes]:
    """Yields the body of a message's only part; refuses a message that is cut off or has another part."""
    blocks = iter(blocks)
    held = _skip_headers(blocks, b"--" + boundary, what)
    end = b"\r\n--" + boundary
    while True:
        place = held.find(end)
        if place >= 0:
            break
        # The boundary may begin in what is held back.
        if len(held) > len(end):
            yield held[: -len(end)]
            held = held[-len(end) :]
        block = next(blocks, None)
        if block is None:
            raise PacsError(PacsFault.MALFORMED, f"{what} was cut off")
        held += block
    yield held[:place]
    tail = held[place + len(end) :]
    while len(tail) < 2 and (block := next(blocks, None)) is not None:
        tail += block
    if not tail.startswith(b"--"):
        raise PacsError(PacsFault.MALFORMED, f"{what} must come alone. Received: several parts.")


def _skip_headers(blocks: Iterator[bytes], start: bytes, what: str) -> bytes:
    """Reads as far as the part's headers, and returns what follows of the blocks read."""
    held = b""
    for block in blocks:
        held += block
        begin = held.find(start)
        end = held.find(_END_OF_HEADERS, begin) if begin >= 0 else -1
        if end >= 0:
            return held[end + len(_END_OF_HEADERS) :]
        if len(held) > _MAX_PREAMBLE_BYTES:
            break
    raise PacsError(PacsFault.MALFORMED, f"{what} has no part that begins")
