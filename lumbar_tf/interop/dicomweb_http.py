"""Answers of a DICOMweb archive: failures, DICOM JSON attributes and multipart responses."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from lumbar_tf.dicom.files.headers import parse_file, suppress_pydicom_warnings
from lumbar_tf.dicom.identifiers import is_safe_id
from lumbar_tf.dicom.reasons import RejectedError
from lumbar_tf.dicom.study import read_optional_text
from lumbar_tf.interop.bounded_session import AnswerLimitError
from lumbar_tf.interop.interfaces import PacsError, PacsFault, StoppedError

_DICOM_TYPE = "application/dicom"
_MAX_PREAMBLE_BYTES = 16 << 10
_IMAGE_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_END_OF_HEADERS = b"\r\n\r\n"
_MAX_MESSAGE_CHARACTERS = 200
#: Of a count of instances, and of seconds to wait.
_MAX_COUNT_DIGITS = 9
_FAULTS: Mapping[int, PacsFault] = {
    HTTPStatus.UNAUTHORIZED: PacsFault.DENIED,
    HTTPStatus.FORBIDDEN: PacsFault.DENIED,
    HTTPStatus.NOT_FOUND: PacsFault.ABSENT,
    HTTPStatus.GONE: PacsFault.ABSENT,
    HTTPStatus.REQUEST_TIMEOUT: PacsFault.TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: PacsFault.TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS: PacsFault.OVERLOADED,
    HTTPStatus.BAD_GATEWAY: PacsFault.UNAVAILABLE,
    HTTPStatus.SERVICE_UNAVAILABLE: PacsFault.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: PacsFault.TIMEOUT,
}


@contextmanager
def raise_pacs_error(request: str) -> Iterator[None]:
    """Raises every failure of a request as `PacsError`.

    Args:
        request: description of the request for messages.

    Raises:
        PacsError: the request failed, or its response has another form than DICOM's.
        StoppedError: the program was asked to stop meanwhile.
        OSError: a file cannot be written.
    """
    try:
        yield
    except requests.HTTPError as error:
        raise _status_error(request, error) from None
    except requests.RequestException as error:
        raise _transport_error(request, error) from None
    except AnswerLimitError as error:
        raise PacsError(error.fault, f"{request}: {error}") from None
    except (PacsError, StoppedError, OSError):
        raise
    except Exception as error:
        # JSON of another shape than DICOM's, nested too deeply, or with numbers that Python refuses to parse.
        # The message could quote the response, so it is dropped.
        message = f"{request}: {type(error).__name__} in the response"
        raise PacsError(PacsFault.MALFORMED, message) from None


def _status_error(request: str, error: requests.HTTPError) -> PacsError:
    """Returns the failure of an HTTP status. The body of the response can contain anything and is dropped."""
    if error.response is None:
        return PacsError(PacsFault.MALFORMED, f"{request}: a response without a status")
    status = error.response.status_code
    # The status of a STOW-RS request of which no instance was stored (PS3.18 section 10.5.3).
    failures = _parse_store_failures(error.response) if status == HTTPStatus.CONFLICT else []
    message = ", ".join([f"{request}: the archive returned status {status}", *failures])
    failure = PacsError(_FAULTS.get(status, PacsFault.REFUSED), message)
    failure.retry_after_s = parse_retry_after(error.response.headers.get("Retry-After", ""), time.time())
    return failure


def parse_retry_after(text: str, now_s: float) -> float:
    """Returns the wait that the header Retry-After demands (RFC 9110 section 10.2.3), seconds.

    >>> parse_retry_after("120", 0.0), parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10.0)
    (120.0, 50.0)

    Args:
        text: a number of seconds or a date; anything else counts as 0.
        now_s: the time, seconds since 1970.
    """
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS:
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now_s, 0.0)
    except (ValueError, TypeError, OverflowError, OSError):
        return 0.0


def _transport_error(request: str, error: requests.RequestException) -> PacsError:
    """Returns the failure of a request without a readable response."""
    if isinstance(error, requests.Timeout):
        return PacsError(PacsFault.TIMEOUT, f"{request}: no response in time")
    if isinstance(error, requests.exceptions.SSLError):
        return PacsError(PacsFault.REFUSED, f"{request}: TLS connection failed: {_tls_message(error)}")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return PacsError(PacsFault.UNAVAILABLE, f"{request}: the connection broke")
    if isinstance(error, requests.ConnectionError):
        # requests reports a timeout while it reads the body as a connection error.
        is_late = "timed out" in str(error).lower()
        fault = PacsFault.TIMEOUT if is_late else PacsFault.UNAVAILABLE
        return PacsError(fault, f"{request}: no connection")
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return PacsError(PacsFault.MALFORMED, f"{request}: the response is not JSON")
    return PacsError(PacsFault.MALFORMED, f"{request}: {type(error).__name__}")


def _tls_message(error: Exception) -> str:
    """Returns the last part of a chain of messages; the first ones only repeat the address."""
    return str(error).rpartition("] ")[2][:_MAX_MESSAGE_CHARACTERS] or type(error).__name__


def find_text(attributes: Mapping[str, Any], keyword: str) -> str:
    """Returns an attribute of the DICOM JSON model as text; "" if it is absent, empty or of another form.

    >>> find_text({"00080060": {"vr": "CS", "Value": ["MR"]}}, "Modality")
    'MR'
    """
    tag = tag_for_keyword(keyword)
    element = attributes.get(f"{tag:08X}") if isinstance(attributes, Mapping) and tag is not None else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    first = values[0] if isinstance(values, list) and values else ""
    if isinstance(first, int) and abs(first) >= 10**_MAX_COUNT_DIGITS:
        return ""  # Python refuses to convert very large integers to text
    return str(first).strip() if isinstance(first, str | int | float) else ""


def find_count(attributes: Mapping[str, Any], keyword: str) -> int | None:
    """Returns a number of instances; None if it is absent or not a plausible one.

    >>> find_count({"00201208": {"vr": "IS", "Value": [47]}}, "NumberOfStudyRelatedInstances")
    47
    """
    text = find_text(attributes, keyword)
    is_count = text.isascii() and text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS
    return int(text) if is_count else None


def find_uid(attributes: Mapping[str, Any], keyword: str) -> str:
    """Returns a UID that is safe in a path and a URL; "" if there is none."""
    text = find_text(attributes, keyword)
    return text if is_safe_id(text) else ""


def read_store_failures(response: Dataset) -> list[str]:
    """Returns the failures that a STOW-RS response reports, with their reasons (PS3.18 section 10.5.3).

    The elements come from a JSON parser; they may be absent, empty or of another type.
    """
    failures = []
    for item in response.get("FailedSOPSequence") or []:
        reason = item.get("FailureReason")
        code = f"0x{reason:04X}" if isinstance(reason, int) else "not given"
        failures.append(f"failure reason {code}")
    return failures


def _parse_store_failures(response: requests.Response) -> list[str]:
    try:
        return read_store_failures(Dataset.from_json(response.json()))
    except Exception:  # pydicom and the parser raise many types, and the status suffices
        return []


def write_instance(
    path: Path, content_type: str, blocks: Iterable[bytes], *, request: str, max_bytes: int
) -> int:
    """Writes the DICOM file of a WADO-RS response in blocks.

    The response is `multipart/related` (RFC 2387) with the instance as its only part (PS3.18 section 10.4);
    some archives send the plain file.

    Args:
        path: file to write. It is incomplete after an error.
        content_type: value of the header Content-Type.
        blocks: body of the response.
        request: description of the request for messages.
        max_bytes: upper limit of the file's size.

    Returns:
        Size of the file, bytes.

    Raises:
        PacsError: MALFORMED or TOO_LARGE.
        OSError: the file cannot be written.
    """
    headers = Message()
    headers["Content-Type"] = content_type
    kind = headers.get_content_type()
    boundary = headers.get_param("boundary")
    if kind == "multipart/related" and isinstance(boundary, str) and boundary:
        content = _read_only_part(blocks, boundary.encode("latin-1", "replace"), request)
    elif kind == _DICOM_TYPE:
        content = iter(blocks)
    else:
        message = f"{request}: the response must be {_DICOM_TYPE}. Received: {kind!r}."
        raise PacsError(PacsFault.MALFORMED, message)
    size = 0
    with path.open("wb") as file:
        for block in content:
            size += len(block)
            if size > max_bytes:
                raise PacsError(PacsFault.TOO_LARGE, f"{request}: more than {max_bytes} bytes")
            file.write(block)
    if not size:
        raise PacsError(PacsFault.MALFORMED, f"{request}: the file is empty")
    return size


def _read_only_part(blocks: Iterable[bytes], boundary: bytes, request: str) -> Iterator[bytes]:
    """Yields the body of a message's only part; refuses a message that is truncated or has a second part."""
    blocks = iter(blocks)
    held = _skip_headers(blocks, b"--" + boundary, request)
    end = b"\r\n--" + boundary
    while (place := held.find(end)) < 0:
        # The end of the held bytes may be the beginning of the boundary.
        if len(held) > len(end):
            yield held[: -len(end)]
            held = held[-len(end) :]
        block = next(blocks, None)
        if block is None:
            raise PacsError(PacsFault.MALFORMED, f"{request}: the response is truncated")
        held += block
    yield held[:place]
    tail = held[place + len(end) :]
    while len(tail) < 2 and (block := next(blocks, None)) is not None:
        tail += block
    if not tail.startswith(b"--"):
        raise PacsError(PacsFault.MALFORMED, f"{request}: the response has several parts")


def _skip_headers(blocks: Iterator[bytes], start: bytes, request: str) -> bytes:
    """Reads to the end of the first part's headers and returns the rest of the blocks that were read."""
    held = b""
    for block in blocks:
        held += block
        begin = held.find(start)
        end = held.find(_END_OF_HEADERS, begin) if begin >= 0 else -1
        if end >= 0:
            return held[end + len(_END_OF_HEADERS) :]
        if len(held) > _MAX_PREAMBLE_BYTES:
            break
    raise PacsError(PacsFault.MALFORMED, f"{request}: the response has no complete part header")


def check_image(path: Path, uids: tuple[str, str, str], *, request: str) -> None:
    """Verifies that a fetched file is the image that was requested.

    A file that cannot be read passes: the reader rejects it with a reason code.

    Args:
        path: DICOM file.
        uids: StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID of the request.
        request: description of the request for messages.

    Raises:
        PacsError: the file has other UIDs.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    with suppress_pydicom_warnings():
        try:
            dataset = parse_file(data).dataset
        except RejectedError:
            return
        found = [read_optional_text(dataset, keyword) for keyword in _IMAGE_UIDS]
    wrong = [keyword for keyword, uid, own in zip(_IMAGE_UIDS, uids, found, strict=True) if uid != own]
    if wrong:
        raise PacsError(PacsFault.MALFORMED, f"{request}: the archive sent another {wrong[0]}")
