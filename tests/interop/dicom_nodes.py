"""Other DICOM nodes: a scanner that sends, an archive that receives, and peers that stop half-way."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pydicom
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from lumbar_tf.interop.dimse import Node

SR_STORAGE, SC_STORAGE = UID("1.2.840.10008.5.1.4.1.1.88.34"), UID("1.2.840.10008.5.1.4.1.1.7")
LOCAL = Node("127.0.0.1", 0)


def associate(port: int, *, calling: str = "MR1", called: str = "LUMBAR_TF") -> Association:
    """Returns an association of a scanner, established or not."""
    ae = ApplicationEntity(ae_title=calling)
    contexts = [
        build_context(sop_class, ExplicitVRLittleEndian) for sop_class in (MRImageStorage, CTImageStorage)
    ]
    return ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called)


def send(
    port: int, datasets: Sequence[pydicom.Dataset], *, calling: str = "MR1", called: str = "LUMBAR_TF"
) -> list[int | None]:
    """Sends datasets as a scanner does and returns the statuses; None if the SCP refuses."""
    association = associate(port, calling=calling, called=called)
    if not association.is_established:
        return [None]
    statuses = []
    for dataset in datasets:
        try:
            statuses.append(association.send_c_store(dataset).get("Status"))
        except (ValueError, RuntimeError):  # no presentation context, or a closed association
            statuses.append(None)
    association.release()
    return statuses


@contextmanager
def receiver(
    status: int = 0x0000,
    *,
    sop_classes: Sequence[str] = (SR_STORAGE, SC_STORAGE),
    syntaxes: Sequence[str] | None = None,
) -> Iterator[tuple[Node, list[pydicom.Dataset]]]:
    """Runs an archive that accepts datasets of some classes and returns `status`."""
    received: list[pydicom.Dataset] = []

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        received.append(dataset)
        return status

    ae = ApplicationEntity(ae_title="PACS")
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, list(syntaxes) if syntaxes else None)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield Node("127.0.0.1", server.server_address[1], "PACS"), received
    finally:
        server.shutdown()


def send_bytes(port: int, data: bytes) -> socket.socket:
    """Returns a connection over which some bytes were sent, without an association."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20.0)
    connection.sendall(data)
    return connection


def stop_inside_a_pdu(port: int) -> Association:
    """Returns an established association whose sender has stopped inside a P-DATA-TF PDU."""
    association = associate(port)
    assert association.is_established
    # 10,000 bytes are announced, and 100 sent.
    association.dul.socket.socket.sendall(b"\x04\x00" + (10_000).to_bytes(4, "big") + bytes(100))
    return association
