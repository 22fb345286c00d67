"""C-STORE of results to another DICOM node (PS3.4 annex B)."""

import re
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.interop.interfaces import PacsError, PacsFault

#: Status codes of C-STORE (PS3.4 section B.2.3).
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
_OUT_OF_RESOURCES_RANGE = range(0xA700, 0xA800)
#: The instance was stored, with a remark.
_WARNING_RANGE = range(0xB000, 0xC000)
#: Result of a rejected association that may succeed later (PS3.8 section 9.3.4).
_REJECTED_TRANSIENT = 2
#: PS3.5 section 6.2 also allows other characters, but neither a backslash nor more than 16 characters.
_AE_TITLE = re.compile(r"[A-Za-z0-9_.-]{1,16}")
_MAX_PORT = 65535


@dataclass(frozen=True)
class Node:
    """Address of a DICOM node.

    Attributes:
        host: host name or IP address.
        port: TCP port.
        ae_title: AE title; "" where it is not needed.
    """

    host: str
    port: int
    ae_title: str = ""

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}" if self.ae_title else f"{self.host}:{self.port}"


def check_ae_title(text: str) -> str:
    """Returns a valid AE title unchanged.

    Raises:
        ValueError: the AE title is not valid.
    """
    if not _AE_TITLE.fullmatch(text):
        raise ValueError(f"An AE title must be 1 to 16 of A-Z, a-z, 0-9, '_', '.', '-'. Received: {text!r}.")
    return text


def parse_node(text: str, *, has_title: bool) -> Node:
    """Returns the node of `HOST:PORT`, or of `AET@HOST:PORT` with `has_title`.

    >>> parse_node("PACS@10.0.0.7:104", has_title=True)
    Node(host='10.0.0.7', port=104, ae_title='PACS')

    Raises:
        ValueError: the text has another form.
    """
    title, at, place = text.rpartition("@")
    host, _, port = place.rpartition(":")
    if bool(at) != has_title or not host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
        form = "AET@HOST:PORT" if has_title else "HOST:PORT"
        raise ValueError(f"A DICOM node must be {form}. Received: {text!r}.")
    return Node(host.strip("[]"), int(port), check_ae_title(title) if has_title else "")


class StoreScu:
    """Storage SCU, a `ResultSink`. Receivers keep one instance per UID, however often it is sent."""

    def __init__(self, node: Node, *, ae_title: str, timeout_s: float = 30.0) -> None:
        """Creates the SCU; sends nothing.

        Args:
            node: receiving node.
            ae_title: AE title of this program.
            timeout_s: time limit of each response, seconds.
        """
        self._node = node
        self._ae = ApplicationEntity(ae_title=ae_title)
        self._ae.connection_timeout = timeout_s
        self._ae.acse_timeout = timeout_s
        self._ae.dimse_timeout = timeout_s
        self._ae.network_timeout = timeout_s

    def store(self, path: Path) -> None:
        """Sends a DICOM file, on an association of its own.

        Besides its own transfer syntax the two uncompressed ones are offered, Implicit VR Little Endian among
        them, which every node must accept (PS3.5 section 10.1); pynetdicom encodes the file in the accepted
        one.

        Raises:
            PacsError: the node cannot be reached, or does not accept the file.
        """
        with suppress_pydicom_warnings():
            dataset = pydicom.dcmread(path)
            own_syntax = dataset.file_meta.TransferSyntaxUID
            self._ae.requested_contexts = []
            for syntax in dict.fromkeys((own_syntax, ExplicitVRLittleEndian, ImplicitVRLittleEndian)):
                self._ae.add_requested_context(dataset.SOPClassUID, syntax)
            association = self._ae.associate(self._node.host, self._node.port, ae_title=self._node.ae_title)
            if not association.is_established:
                raise self._association_error(association, dataset)
            request = f"{self._node} and result {dataset.SOPInstanceUID}"
            try:
                response = association.send_c_store(dataset)
            except RuntimeError:
                raise PacsError(PacsFault.UNAVAILABLE, f"{request}: the association ended") from None
            except ValueError:
                raise PacsError(PacsFault.REFUSED, f"{request}: no accepted transfer syntax") from None
            finally:
                association.release()
        _check_status(response.get("Status"), request)

    def _association_error(self, association: Association, dataset: Dataset) -> PacsError:
        """Returns the failure of an association that was not established."""
        if association.rejected_contexts:
            # pynetdicom aborts an association of which the node accepted no presentation context.
            message = f"{self._node} does not accept SOP class {dataset.SOPClassUID}"
            return PacsError(PacsFault.REFUSED, message)
        fault = PacsFault.UNAVAILABLE
        if association.is_rejected:
            answer = association.acceptor.primitive
            is_transient = getattr(answer, "result", None) == _REJECTED_TRANSIENT
            fault = PacsFault.OVERLOADED if is_transient else PacsFault.REFUSED
        return PacsError(fault, f"{self._node} made no association for {dataset.SOPInstanceUID}")


def _check_status(status: int | None, request: str) -> None:
    if status is None:
        raise PacsError(PacsFault.TIMEOUT, f"{request}: no response")
    if status == SUCCESS or status in _WARNING_RANGE:
        return
    fault = PacsFault.OVERLOADED if status in _OUT_OF_RESOURCES_RANGE else PacsFault.REFUSED
    raise PacsError(fault, f"{request}: status 0x{status:04X}")
