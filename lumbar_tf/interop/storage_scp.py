"""Storage SCP for MR images (PS3.4 annex B), with limits that no peer can exceed.

DICOM's upper layer has no authentication and no encryption: everyone who reaches the port and uses an
accepted AE title is served. pynetdicom reads a protocol data unit (PDU) without a limit of its size or time,
and counts connections without an association. The limits are therefore enforced on the socket, below
pynetdicom.
"""

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any

from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedMRImageStorage,
    MRImageStorage,
)
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from lumbar_tf.dicom.files.codecs import CODECS, NATIVE_SYNTAXES
from lumbar_tf.interop.dimse import OUT_OF_RESOURCES, SUCCESS, Node
from lumbar_tf.interop.incoming_studies import IncomingStudies
from lumbar_tf.interop.interfaces import PacsError, PacsFault

_LOG = logging.getLogger(__name__)
#: SOP class of C-ECHO (PS3.4 annex A).
_VERIFICATION = "1.2.840.10008.1.1"
_STORAGE_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
_PREFERRED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
#: Transfer syntaxes that the reader decodes, uncompressed ones first: a sender takes the first that it has.
TRANSFER_SYNTAXES = (*_PREFERRED, *sorted({*NATIVE_SYNTAXES, *CODECS}.difference(_PREFERRED)))
#: The data set does not match the SOP class (PS3.4 section B.2.3).
_DATA_SET_MISMATCH = 0xA900
#: Rejected transient by the provider of the presentation service: local limit exceeded (PS3.8 section 9.3.4).
_LIMIT_EXCEEDED = (0x02, 0x03, 0x02)
#: PDU type, a reserved byte and the length of the rest (PS3.8 section 9.3.1).
_PDU_HEADER_BYTES = 6
_SHUTDOWN_S = 2.0


@dataclass(frozen=True)
class ListenerLimits:
    """Limits of the SCP.

    Attributes:
        associations: number of associations at a time. Connections without an association do not count.
        connections: number of connections at a time; a further one closes the oldest without an association.
        pdu_bytes: size of a PDU. PDUs with image data have at most the 16 KiB that the SCP announces.
        instance_bytes: size of an instance, which is held in memory while it is received.
        request_s: time until a connection requests an association, seconds.
        pdu_s: time from the first to the last byte of a PDU, and of a response, seconds.
        idle_s: time in which an association must store an instance or send `idle_bytes`, seconds.
        idle_bytes: see `idle_s`.
    """

    associations: int = 4
    connections: int = 64
    pdu_bytes: int = 1 << 20
    instance_bytes: int = 256 << 20
    request_s: float = 15.0
    pdu_s: float = 30.0
    idle_s: float = 60.0
    idle_bytes: int = 64 << 10


class _GuardedSocket(socket.socket):
    """Accepted connection that raises OSError where its peer exceeds a limit; pynetdicom then closes it.

    Attributes:
        on_end: called when the connection has ended.
    """

    on_end: Callable[[], None]

    def __init__(self, accepted: socket.socket, limits: ListenerLimits) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.on_end = lambda: None
        self._limits = limits
        self._header = bytearray()
        self._left = 0
        self._pdu_end = 0.0
        self._instance_bytes = 0
        self._window_start, self._window_bytes = time.monotonic(), 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receives bytes of one PDU: pynetdicom requests its header, and then no more than the rest."""
        data = b""
        try:
            data = self._receive(size, flags)
        finally:
            if not data:
                self.on_end()
        return data

    def _receive(self, size: int, flags: int) -> bytes:
        now = time.monotonic()
        if not self._left and not self._header:
            self._pdu_end = now + self._limits.pdu_s
        if now > self._pdu_end:
            raise TimeoutError("a PDU took too long")
        self._check_pace(now)
        self.settimeout(max(self._pdu_end - now, 1e-3))
        data = super().recv(size, flags)
        self._count(data)
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """Sends bytes; a peer that does not read them is given up after a time."""
        self.settimeout(self._limits.pdu_s)
        return super().send(data, flags)

    def note_instance(self) -> None:
        """Starts the limits of an instance anew."""
        self._instance_bytes = 0
        self._window_start, self._window_bytes = time.monotonic(), 0

    def shutdown(self, how: int) -> None:
        """Ends the connection, also from another thread; calls that wait for the peer return.

        A peer that has gone is no error: pynetdicom would not close the socket after one.
        """
        with suppress(OSError):
            super().shutdown(how)

    def _check_pace(self, now: float) -> None:
        if now - self._window_start > self._limits.idle_s:
            if self._window_bytes < self._limits.idle_bytes:
                raise TimeoutError("an instance arrives too slowly")
            self._window_start, self._window_bytes = now, 0

    def _count(self, data: bytes) -> None:
        self._window_bytes += len(data)
        self._instance_bytes += len(data)
        if self._instance_bytes > self._limits.instance_bytes:
            _LOG.warning("connection closed: more than %d bytes for an instance", self._limits.instance_bytes)
            raise OSError("an instance is too large")
        if self._left:
            self._left -= len(data)
            return
        self._header += data
        if len(self._header) == _PDU_HEADER_BYTES:
            self._left = int.from_bytes(self._header[2:], "big")
            self._header.clear()
            if self._left > self._limits.pdu_bytes:
                _LOG.warning("connection closed: a PDU of more than %d bytes", self._limits.pdu_bytes)
                raise OSError("a PDU is too large")


class _Server(ThreadedAssociationServer):
    """Server that guards its connections. `limits` is set before it serves."""

    limits: ListenerLimits
    #: Connections in the order in which they were accepted, and those with an association.
    connections: list[_GuardedSocket]
    associations: set[Association]
    lock: threading.Lock

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts a connection; closes the oldest one without an association when there are too many."""
        accepted, address = super().get_request()
        connection = _GuardedSocket(accepted, self.limits)
        with self.lock:
            self.connections = [known for known in self.connections if known.fileno() >= 0]
            self.connections.append(connection)
            if len(self.connections) > self.limits.connections:
                served = {_connection(association) for association in self.associations}
                oldest = next(known for known in self.connections if known not in served)
                oldest.shutdown(socket.SHUT_RDWR)
                self.connections.remove(oldest)
        return connection, address

    def admit(self, event: evt.Event) -> None:
        """Handles an association request: rejects it when there are too many associations."""
        association = event.assoc
        with self.lock:
            self.associations = {known for known in self.associations if known.is_alive()}
            if len(self.associations) < self.limits.associations:
                self.associations.add(association)
                return
        _LOG.warning("association rejected: there are %d already", self.limits.associations)
        association.acse.send_reject(*_LIMIT_EXCEEDED)
        association.kill()

    def release(self, event: evt.Event) -> None:
        """Handles the end of an association, or its rejection."""
        with self.lock:
            self.associations.discard(event.assoc)

    def watch_for_end(self, event: evt.Event) -> None:
        """Handles a new connection."""
        association = event.assoc

        def note_end() -> None:
            if not association.is_established:
                # Its thread would wait for the association request until the timeout.
                association.dul.to_user_queue.put(None)

        _connection(association).on_end = note_end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs that a connection failed; the standard library would print the traceback."""
        _LOG.warning("a connection failed")

    def close(self) -> None:
        """Stops accepting, and breaks off all connections: a peer could keep the program running."""
        # Not pynetdicom's `shutdown`, which expects a server that its AE has started.
        BaseServer.shutdown(self)
        self.server_close()
        associations = self.active_associations
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + _SHUTDOWN_S
        for association in associations:
            association.dul.kill_dul()
        for association in associations:
            association.dul.join(max(end - time.monotonic(), 0.0))


def _connection(association: Association) -> Any:
    """Returns the guarded socket of an association; None if it is closed."""
    transport = association.dul.socket
    return transport.socket if transport is not None else None


@contextmanager
def listen(
    node: Node,
    studies: IncomingStudies,
    *,
    ae_title: str,
    calling: Sequence[str] = (),
    limits: ListenerLimits | None = None,
) -> Iterator[int]:
    """Runs a Storage and Verification SCP in threads of its own for the duration of a block.

    Args:
        node: address to listen on.
        studies: receives the images.
        ae_title: AE title of this program; associations with another called AE title are rejected.
        calling: AE titles of the nodes that may send; empty for all.
        limits: limits of peers; the connection that exceeds one is closed.

    Yields:
        TCP port.

    Raises:
        OSError: the port is not available.
    """
    limits = limits or ListenerLimits()
    ae = ApplicationEntity(ae_title=ae_title)
    ae.require_called_aet = True
    ae.require_calling_aet = list(calling)
    # pynetdicom also counts connections without an association; `_Server.admit` does not.
    ae.maximum_associations = sys.maxsize
    ae.acse_timeout = limits.request_s
    ae.network_timeout = ae.dimse_timeout = limits.idle_s
    ae.add_supported_context(_VERIFICATION)
    for sop_class in _STORAGE_CLASSES:
        ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
    server = _make_server(ae, node, studies, limits)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.close()


def _make_server(
    ae: ApplicationEntity, node: Node, studies: IncomingStudies, limits: ListenerLimits
) -> _Server:
    """Returns a bound server with its event handlers."""

    def store(event: evt.Event) -> int:
        status = _receive(event, studies)
        connection = _connection(event.assoc)
        if connection is not None:
            connection.note_instance()
        return status

    server: Any = ae.make_server(
        (node.host, node.port), evt_handlers=[(evt.EVT_C_STORE, store)], server_class=_Server
    )
    server.limits, server.connections, server.associations = limits, [], set()
    server.lock = threading.Lock()
    server.bind(evt.EVT_REQUESTED, server.admit)
    server.bind(evt.EVT_ACCEPTED, lambda event: studies.add_sender(event.assoc))
    server.bind(evt.EVT_CONN_OPEN, server.watch_for_end)
    for ended in (evt.EVT_REJECTED, evt.EVT_RELEASED, evt.EVT_ABORTED, evt.EVT_CONN_CLOSE):
        server.bind(ended, server.release)
    return server


def _receive(event: evt.Event, studies: IncomingStudies) -> int:
    """Returns the status of a C-STORE. Success means that the instance is on the disk."""
    try:
        studies.receive(event.encoded_dataset(), str(event.request.AffectedSOPInstanceUID))
    except PacsError as error:
        # Not the UIDs, which are arbitrary text of the sender.
        _LOG.warning("instance refused: %s", error)
        return OUT_OF_RESOURCES if error.fault is PacsFault.TOO_LARGE else _DATA_SET_MISMATCH
    except OSError as error:
        _LOG.warning("instance not written: %s", error.strerror)
        return OUT_OF_RESOURCES
    return SUCCESS
