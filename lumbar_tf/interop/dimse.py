"""C-STORE with other DICOM nodes (PS3.4 annex B): an SCP for MR images and an SCU for results.

DICOM's upper layer has no authentication and no encryption: the SCP accepts everyone who reaches the port and
uses an accepted AE title.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import (
    JPEG2000,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity

from lumbar_tf.dicom.files.headers import suppress_pydicom_warnings
from lumbar_tf.interop.incoming_studies import IncomingStudies
from lumbar_tf.interop.interfaces import PacsError, PacsFault

_LOG = logging.getLogger(__name__)
#: SOP class of C-ECHO (PS3.4 annex A).
_VERIFICATION = "1.2.840.10008.1.1"
_STORAGE_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
#: Transfer syntaxes that the reader decodes, uncompressed ones first: a sender takes the first that it has.
_TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)
#: Limit of a received instance. Each association holds one in memory while it is received.
MAX_INSTANCE_BYTES = 256 << 20
_MAX_ASSOCIATIONS = 4
_NETWORK_TIMEOUT_S = 60.0
#: Status codes of C-STORE (PS3.4 section B.2.3).
_SUCCESS, _OUT_OF_RESOURCES, _DATA_SET_MISMATCH = 0x0000, 0xA700, 0xA900
_OUT_OF_RESOURCES_RANGE = range(0xA700, 0xA800)
#: The instance was stored, with a remark.
_WARNING_RANGE = range(0xB000, 0xC000)
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
        """Sends a DICOM file.

        Raises:
            PacsError: the node cannot be reached, or does not accept the file.
        """
        with suppress_pydicom_warnings():
            dataset = pydicom.dcmread(path)
            self._ae.requested_contexts = []
            self._ae.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
            association = self._ae.associate(self._node.host, self._node.port, ae_title=self._node.ae_title)
            if not association.is_established:
                fault = PacsFault.REFUSED if association.is_rejected else PacsFault.UNAVAILABLE
                raise PacsError(fault, f"{self._node} made no association for {dataset.SOPInstanceUID}")
            try:
                if not association.accepted_contexts:
                    raise PacsError(
                        PacsFault.REFUSED, f"{self._node} does not accept SOP class {dataset.SOPClassUID}"
                    )
                response = association.send_c_store(dataset)
            finally:
                association.release()
        _check_status(response.get("Status"), f"{self._node} and result {dataset.SOPInstanceUID}")


def _check_status(status: int | None, request: str) -> None:
    if status is None:
        raise PacsError(PacsFault.TIMEOUT, f"{request}: no response")
    if status == _SUCCESS or status in _WARNING_RANGE:
        return
    fault = PacsFault.OVERLOADED if status in _OUT_OF_RESOURCES_RANGE else PacsFault.REFUSED
    raise PacsError(fault, f"{request}: status 0x{status:04X}")


class _SizeLimit:
    """Closes an association that sends more bytes than an instance may have."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._received: dict[int, int] = {}

    def count(self, event: evt.Event) -> None:
        """Handles `EVT_DATA_RECV`."""
        key = id(event.assoc)
        self._received[key] = self._received.get(key, 0) + len(event.data)
        if self._received[key] > self._max_bytes:
            _LOG.warning("association closed: more than %d bytes for one instance", self._max_bytes)
            self.reset(event)
            event.assoc.dul.socket.close()

    def reset(self, event: evt.Event) -> None:
        """Handles the end of an instance or of the connection."""
        self._received.pop(id(event.assoc), None)


@contextmanager
def listen(
    node: Node,
    studies: IncomingStudies,
    *,
    ae_title: str,
    calling: Sequence[str] = (),
    max_instance_bytes: int = MAX_INSTANCE_BYTES,
) -> Iterator[int]:
    """Runs a Storage and Verification SCP in threads of its own for the duration of a block.

    Args:
        node: address to listen on.
        studies: receives the images.
        ae_title: AE title of this program; associations with another called AE title are rejected.
        calling: AE titles of the nodes that may send; empty for all.
        max_instance_bytes: limit of an instance; the association that exceeds it is closed.

    Yields:
        TCP port.

    Raises:
        OSError: the port is not available.
    """
    limit = _SizeLimit(max_instance_bytes)
    ae = ApplicationEntity(ae_title=ae_title)
    ae.require_called_aet = True
    ae.require_calling_aet = list(calling)
    ae.maximum_associations = _MAX_ASSOCIATIONS
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = _NETWORK_TIMEOUT_S
    ae.add_supported_context(_VERIFICATION)
    for sop_class in _STORAGE_CLASSES:
        ae.add_supported_context(sop_class, list(_TRANSFER_SYNTAXES))

    def store(event: evt.Event) -> int:
        limit.reset(event)
        return _receive(event, studies)

    handlers = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_DATA_RECV, limit.count),
        (evt.EVT_CONN_CLOSE, limit.reset),
    ]
    server = ae.start_server((node.host, node.port), block=False, evt_handlers=handlers)
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def _receive(event: evt.Event, studies: IncomingStudies) -> int:
    """Returns the status of a C-STORE. Success means that the instance is on the disk."""
    try:
        studies.receive(event.encoded_dataset(), str(event.request.AffectedSOPInstanceUID))
    except PacsError as error:
        # Not the UIDs, which are arbitrary text of the sender.
        _LOG.warning("instance refused: %s", error)
        return _OUT_OF_RESOURCES if error.fault is PacsFault.TOO_LARGE else _DATA_SET_MISMATCH
    except OSError as error:
        _LOG.warning("instance not written: %s", error.strerror)
        return _OUT_OF_RESOURCES
    return _SUCCESS
