"""Takes MR images that other nodes send: a Storage and Verification SCP (PS3.4 annexes A and B).

DICOM's upper layer knows no user and no encryption of its own: whoever reaches the port and gives an AE title
is who they say they are.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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

from lumbar_tf.interop.incoming_studies import IncomingStudies
from lumbar_tf.interop.pacs_errors import PacsError, PacsFault
from lumbar_tf.interop.storage_scu import Node

_LOG = logging.getLogger(__name__)
_VERIFICATION = "1.2.840.10008.1.1"
_STORAGE = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
#: What the reader decodes, the plain ones first: a sender takes the first that it has.
_SYNTAXES = (
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
#: An instance is held in memory while it comes, one for each association.
MAX_INSTANCE_BYTES = 256 << 20
_MAX_ASSOCIATIONS = 4
_IDLE_S = 60.0
#: PS3.4 section B.2.3.
_SUCCESS, _OUT_OF_RESOURCES, _MISMATCH = 0x0000, 0xA700, 0xA900


class _Limit:
    """Ends a connection that sends more than an instance may have."""

    def __init__(self) -> None:
        self._received: dict[int, int] = {}

    def count(self, event: evt.Event) -> None:
        """Handles `EVT_DATA_RECV`."""
        key = id(event.assoc)
        self._received[key] = self._received.get(key, 0) + len(event.data)
        if self._received[key] > MAX_INSTANCE_BYTES:
            _LOG.warning("a node sent more than %d bytes for one instance; cut off", MAX_INSTANCE_BYTES)
            self.forget(event)
            event.assoc.dul.socket.close()

    def forget(self, event: evt.Event) -> None:
        """An instance is complete, or the connection has ended."""
        self._received.pop(id(event.assoc), None)


@contextmanager
def listen(
    node: Node, studies: IncomingStudies, *, ae_title: str, calling: Sequence[str] = ()
) -> Iterator[int]:
    """Listens, in threads of its own, for as long as the block runs.

    Args:
        node: where.
        studies: gets what comes.
        ae_title: what we are called; a node that calls another is refused.
        calling: titles of the nodes that may send; empty for all.

    Yields:
        The port.

    Raises:
        OSError: the port cannot be had.
    """
    limit = _Limit()
    ae = ApplicationEntity(ae_title=ae_title)
    ae.require_called_aet = True
    ae.require_calling_aet = list(calling)
    ae.maximum_associations = _MAX_ASSOCIATIONS
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = _IDLE_S
    ae.add_supported_context(_VERIFICATION)
    for each in _STORAGE:
        ae.add_supported_context(each, list(_SYNTAXES))

    def store(event: evt.Event) -> int:
        limit.forget(event)
        return _receive(event, studies)

    handlers = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_DATA_RECV, limit.count),
        (evt.EVT_CONN_CLOSE, limit.forget),
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
        # The UIDs are the sender's text, so only the reason is told.
        _LOG.warning("an instance was refused: %s", error)
        return _OUT_OF_RESOURCES if error.fault is PacsFault.TOO_LARGE else _MISMATCH
    except OSError as error:
        _LOG.warning("an instance could not be written: %s", error.strerror)
        return _OUT_OF_RESOURCES
    return _SUCCESS
