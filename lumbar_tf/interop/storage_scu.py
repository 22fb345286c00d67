"""Results to another DICOM node by C-STORE (PS3.4 annex B)."""

import re
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pynetdicom.ae import ApplicationEntity

from lumbar_tf.dicom.files.pydicom_warnings import suppress_pydicom_warnings
from lumbar_tf.interop.pacs_errors import PacsError, PacsFault

#: PS3.5 section 6.2: at most 16 characters, no backslash; spaces around it mean nothing.
_AE_TITLE = re.compile(r"[A-Za-z0-9_.-]{1,16}")
_MAX_PORT = 65535
_SUCCESS = 0x0000
_OUT_OF_RESOURCES = range(0xA700, 0xA800)
#: Stored, with a remark (PS3.4 section B.2.3).
_WARNINGS = range(0xB000, 0xC000)


@dataclass(frozen=True)
class Node:
    """A DICOM node.

    Attributes:
        host: name or number.
        port: its port.
        ae_title: what it calls itself; "" where it does not matter.
    """

    host: str
    port: int
    ae_title: str = ""

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}" if self.ae_title else f"{self.host}:{self.port}"


def check_ae_title(text: str) -> str:
    """Returns an AE title that can be used here.

    Raises:
        ValueError: it cannot.
    """
    if not _AE_TITLE.fullmatch(text):
        raise ValueError(f"An AE title must be 1 to 16 of A-Z, a-z, 0-9, '_', '.', '-'. Received: {text!r}.")
    return text


def parse_node(text: str, *, has_title: bool) -> Node:
    """Reads `HOST:PORT`, or `AET@HOST:PORT` with `has_title`.

    >>> parse_node("PACS@10.0.0.7:104", has_title=True)
    Node(host='10.0.0.7', port=104, ae_title='PACS')

    Raises:
        ValueError: it is neither.
    """
    title, at, place = text.rpartition("@")
    host, _, port = place.rpartition(":")
    if bool(at) != has_title or not host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
        rule = "AET@HOST:PORT" if has_title else "HOST:PORT"
        raise ValueError(f"A DICOM node must be {rule}. Received: {text!r}.")
    return Node(host.strip("[]"), int(port), check_ae_title(title) if has_title else "")


class StoreScu:
    """A `ResultSink`: another node, which keeps one instance a UID however often it is sent."""

    def __init__(self, node: Node, *, ae_title: str, timeout_s: float = 30.0) -> None:
        """Takes the node, our own title and how long an answer may take; nothing is sent yet."""
        self._node = node
        self._ae = ApplicationEntity(ae_title=ae_title)
        self._ae.connection_timeout = timeout_s
        self._ae.acse_timeout = timeout_s
        self._ae.dimse_timeout = timeout_s
        self._ae.network_timeout = timeout_s

    def store(self, path: Path) -> None:
        """Sends a file.

        Raises:
            PacsError: the node is not there, or does not take it.
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
                        PacsFault.REFUSED, f"{self._node} does not take SOP class {dataset.SOPClassUID}"
                    )
                answer = association.send_c_store(dataset)
            finally:
                association.release()
        _check_status(answer.get("Status"), f"{self._node} and result {dataset.SOPInstanceUID}")


def _check_status(status: int | None, what: str) -> None:
    if status is None:
        raise PacsError(PacsFault.TIMEOUT, f"{what}: no answer")
    if status == _SUCCESS or status in _WARNINGS:
        return
    fault = PacsFault.OVERLOADED if status in _OUT_OF_RESOURCES else PacsFault.REFUSED
    raise PacsError(fault, f"{what}: status 0x{status:04X}")
