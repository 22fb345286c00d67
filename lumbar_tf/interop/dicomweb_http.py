"""HTTP layer of the DICOMweb client: session, failures, DICOM JSON attributes and multipart responses."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from lumbar_tf.dicom.identifiers import is_safe_id
from lumbar_tf.interop.dicomweb_connection import CredentialsFile, DicomwebConnection
from lumbar_tf.interop.interfaces import PacsError, PacsFault

_DICOM_TYPE = "application/dicom"
_MAX_PREAMBLE_BYTES = 16 << 10
_END_OF_HEADERS = b"\r\n\r\n"
_MAX_MESSAGE_CHARACTERS = 200
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


class _FileAuth(requests.auth.AuthBase):
    """Authentication with credentials that are read for each request."""

    def __init__(self, credentials: CredentialsFile) -> None:
        self._credentials = credentials

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._credentials.header()
        return request


class _Session(requests.Session):
    def merge_environment_settings(self, *arguments: Any, **keywords: Any) -> Any:
        """Keeps the session's own CA file, which requests would override with REQUESTS_CA_BUNDLE."""
        settings = super().merge_environment_settings(*arguments, **keywords)
        if isinstance(self.verify, str):
            settings["verify"] = self.verify
        return settings


def open_session(connection: DicomwebConnection) -> requests.Session:
    """Returns an HTTP session with the credentials and TLS files of a connection; sends nothing.

    Raises:
        OSError: a file of the connection cannot be read.
        PacsError: the credentials file is malformed.
    """
    session = _Session()
    # A redirect means a wrong URL, and no other host may receive patient data or credentials.
    session.max_redirects = 0
    tls = connection.tls
    for path in (tls.ca, tls.cert, tls.key):
        if path is not None:
            path.open("rb").close()
    if tls.ca is not None:
        session.verify = str(tls.ca)
    if tls.cert is not None and tls.key is not None:
        session.cert = (str(tls.cert), str(tls.key))
    if connection.credentials is not None:
        connection.credentials.header()
        session.auth = _FileAuth(connection.credentials)
    return session


@contextmanager
def raise_pacs_error(request: str) -> Iterator[None]:
    """Raises every failure of a request as `PacsError`.

    Args:
        request: description of the request for messages.

    Raises:
        PacsError: the request failed, or its response has another form than DICOM's.
    """
    try:
        yield
    except requests.HTTPError as error:
        raise _status_error(request, error) from None
    except requests.RequestException as error:
        raise _transport_error(request, error) from None
    except PacsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # JSON of another shape than DICOM's. The message could quote the response, so it is dropped.
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
    return PacsError(_FAULTS.get(status, PacsFault.REFUSED), message)


def _transport_error(request: str, error: requests.RequestException) -> PacsError:
    """Returns the failure of a request without a readable response."""
    if isinstance(error, requests.Timeout):
        return PacsError(PacsFault.TIMEOUT, f"{request}: no response in time")
    if isinstance(error, requests.exceptions.SSLError):
        return PacsError(PacsFault.REFUSED, f"{request}: TLS connection failed: {_tls_message(error)}")
    if isinstance(error, requests.TooManyRedirects):
        return PacsError(PacsFault.REFUSED, f"{request}: the archive redirects; check the URL")
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
    return str(first).strip() if isinstance(first, str | int | float) else ""


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
