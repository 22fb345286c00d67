"""What a DICOMweb archive's answers say: values, failures, what was not stored."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import requests
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from lumbar_tf.dicom.uids import is_safe_id
from lumbar_tf.interop.pacs_errors import PacsError, PacsFault

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


def find_text(attributes: Mapping[str, Any], keyword: str) -> str:
    """Returns an attribute of the DICOM JSON model as text; "" where it is absent, empty or of another form.

    >>> find_text({"00080060": {"vr": "CS", "Value": ["MR"]}}, "Modality")
    'MR'
    """
    tag = tag_for_keyword(keyword)
    element = attributes.get(f"{tag:08X}") if isinstance(attributes, Mapping) and tag is not None else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    first = values[0] if isinstance(values, list) and values else ""
    return str(first).strip() if isinstance(first, str | int | float) else ""


def find_uid(attributes: Mapping[str, Any], keyword: str) -> str:
    """Returns a UID that is fit to stand in a path and a URL; "" where there is none."""
    text = find_text(attributes, keyword)
    return text if is_safe_id(text) else ""


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
        failure = PacsError(PacsFault.MALFORMED, f"{request}: {type(error).__name__} in the answer")
        raise failure from None


def _status_error(what: str, error: requests.HTTPError) -> PacsError:
    """Returns the failure that a status tells. The answer's own text can hold anything, and is not kept."""
    if error.response is None:
        return PacsError(PacsFault.MALFORMED, f"{what}: an answer without a status")
    status = error.response.status_code
    said = f"{what}: the archive answered {status}"
    # As an archive answers a STOW-RS request of which it stored nothing.
    failures = _failures_in(error.response) if status == HTTPStatus.CONFLICT else []
    fault = _FAULTS.get(status, PacsFault.REFUSED)
    return PacsError(fault, ", ".join([said, *failures]))


def _transport_error(what: str, error: requests.RequestException) -> PacsError:
    """Returns the failure of a request that got no answer, or none that can be read."""
    if isinstance(error, requests.Timeout):
        return PacsError(PacsFault.TIMEOUT, f"{what}: no answer in time")
    if isinstance(error, requests.exceptions.SSLError):
        return PacsError(PacsFault.REFUSED, f"{what}: the encrypted connection was not made: {_short(error)}")
    if isinstance(error, requests.TooManyRedirects):
        return PacsError(PacsFault.REFUSED, f"{what}: the archive sends elsewhere; is the URL right?")
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return PacsError(PacsFault.UNAVAILABLE, f"{what}: the connection broke")
    if isinstance(error, requests.ConnectionError):
        # requests reports a read that times out in the body so.
        is_late = "timed out" in str(error).lower()
        fault = PacsFault.TIMEOUT if is_late else PacsFault.UNAVAILABLE
        return PacsError(fault, f"{what}: no connection")
    if isinstance(error, requests.exceptions.JSONDecodeError):
        return PacsError(PacsFault.MALFORMED, f"{what}: the answer is no JSON")
    return PacsError(PacsFault.MALFORMED, f"{what}: {type(error).__name__}")


def read_store_failures(answer: Dataset) -> list[str]:
    """Returns what a STOW-RS answer says was not stored, with DICOM's reason codes (PS3.18 section 10.5.3).

    Elements come from a JSON parser and are absent, empty or of another kind as a server pleases.
    """
    found = []
    for item in answer.get("FailedSOPSequence") or []:
        reason = item.get("FailureReason")
        code = f"0x{reason:04X}" if isinstance(reason, int) else "none given"
        found.append(f"failure reason {code}")
    return found


def _failures_in(response: requests.Response) -> list[str]:
    try:
        return read_store_failures(Dataset.from_json(response.json()))
    except Exception:  # pydicom and the parser raise many kinds, and the status says enough
        return []


def _short(error: Exception) -> str:
    """The last part of a chain of messages: the first ones name the address twice."""
    return str(error).rpartition("] ")[2][:200] or type(error).__name__
