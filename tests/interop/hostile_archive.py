"""DICOMweb archive that misbehaves in many ways, over plain sockets.

Behaviours of the list of studies come one after the other, before the first proper list. Each other behaviour
has a study of its own; one more study is sound.
"""

import gzip
import io
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

MULTIPART = 'multipart/related; type="application/dicom"; boundary=b'
SOUND_STUDY = "1.9.999"
_NUM_IMAGES = 2

#: Writes the answer to a request.
Behaviour = Callable[[socket.socket], None]


def head(kind: str = "application/dicom+json", *lines: str, status: str = "200 OK") -> bytes:
    # Without the third line, a client may send its next request over a connection that is being closed.
    first = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close")
    return "\r\n".join([*first, *lines, "", ""]).encode()


def say(*parts: bytes) -> Behaviour:
    return lambda peer: peer.sendall(b"".join(parts))


def repeat(block: bytes, first: bytes = b"") -> Behaviour:
    """Sends a block without end."""

    def send(peer: socket.socket) -> None:
        peer.sendall(first)
        blocks = block * max(1, (64 << 10) // len(block))
        while True:
            peer.sendall(blocks)

    return send


def drip(first: bytes = b"", byte: bytes = b" ") -> Behaviour:
    """Sends a byte every tenth of a second."""

    def send(peer: socket.socket) -> None:
        peer.sendall(first)
        while True:
            peer.sendall(byte)
            time.sleep(0.1)

    return send


def be_silent(peer: socket.socket) -> None:
    peer.settimeout(30.0)
    while peer.recv(1 << 16):
        pass


def whole(
    body: bytes, kind: str = "application/dicom+json", *lines: str, status: str = "200 OK"
) -> Behaviour:
    return say(head(kind, f"Content-Length: {len(body)}", *lines, status=status), body)


def gzip_bomb() -> Behaviour:
    """Sends 1 MB that inflate to 1 GiB."""
    return whole(gzip.compress(bytes(1 << 24)) * 64, "application/dicom+json", "Content-Encoding: gzip")


def attributes(**values: object) -> dict[str, object]:
    return {tag[1:]: {"vr": "LO", "Value": [value]} for tag, value in values.items()}


def series_of(count: object) -> Behaviour:
    return whole(json.dumps([attributes(t0020000E="1.9.1", t00080060="MR", t00201209=count)]).encode())


def image(study: str, series: str, instance: str) -> bytes:
    """Returns a small MR image."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.Modality = "Doe^Jane", "MR"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.PixelData = np.zeros((4, 4), np.uint16).tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def part(data: bytes) -> bytes:
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"


DEEP = b"[" * 200_000
DIGITS = b"9" * 5_000
DOE = b"Doe^Jane"

#: Answers to the list of studies, and the kind of failure that the log names.
LISTS: dict[str, tuple[Behaviour, str]] = {
    "endless JSON": (repeat(b"[],", head() + b"["), "too_large"),
    "gzip bomb": (gzip_bomb(), "malformed"),
    "400,000 studies": (
        whole(json.dumps([attributes(t0020000D=f"1.{number}") for number in range(400_000)]).encode()),
        "too_large",
    ),
    "redirect with an endless body": (
        repeat(DOE, head("text/html", "Location: http://127.0.0.1:1/", status="302 Found")),
        "refused",
    ),
    "status 304": (say(head("text/html", status="304 Not Modified")), "refused"),
    "endless interim responses": (repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), "too_large"),
    "dripping interim responses": (drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, b"H"), "timeout"),
    "a byte each tenth of a second": (drip(head() + b"["), "timeout"),
    "deep JSON": (whole(DEEP), "malformed"),
    "a number of 5,000 digits": (whole(b'[{"0020000D": {"Value": [' + DIGITS + b"]}}]"), "malformed"),
    "endless header line": (repeat(b"x", b"HTTP/1.1 200 OK\r\nX: "), "unavailable"),
    "endless headers": (repeat(b"X: y\r\n", b"HTTP/1.1 200 OK\r\n"), "unavailable"),
    "endless chunk header": (repeat(b"0", head("a/b", "Transfer-Encoding: chunked")), "unavailable"),
    "chunks of one byte": (
        repeat(b"1\r\n \r\n", head("application/json", "Transfer-Encoding: chunked")),
        "too_large",
    ),
    "endless error body": (repeat(DOE, head("text/html", status="500 Oops")), "refused"),
    "no status line": (say(b"220 ftp.example ready\r\n"), "unavailable"),
    "nothing": (say(), "unavailable"),
    "silence": (be_silent, "timeout"),
    "a body that is cut off": (say(head("a/b", "Content-Length: 9000"), b"["), "unavailable"),
    "a page of HTML": (whole(b"<p>" + DOE, "text/html"), "malformed"),
    "invalid UTF-8": (whole(b'["\xff\xfe'), "malformed"),
    "wait for 30,000 years": (
        whole(b"", "a/b", "Retry-After: 999999999999", status="503 Busy"),
        "unavailable",
    ),
    "no permission": (whole(DOE, "text/plain", status="403 No"), "denied"),
}

#: Behaviours of a study: the request that is answered so, and the kind of failure that its journal names; ""
#: for a study that is graded nevertheless.
STUDIES: dict[str, tuple[str, Behaviour, str]] = {
    "deep series": ("series", whole(DEEP), "malformed"),
    "series drip": ("series", drip(head() + b"["), "timeout"),
    "count of 5,000 digits": ("series", series_of("9" * 5_000), ""),
    "count as a number of 5,000 digits": ("series", whole(b'[{"a": ' + DIGITS + b"}]"), "malformed"),
    "count that is a list": ("series", series_of([1, 2]), ""),
    "series gzip": ("series", gzip_bomb(), "malformed"),
    "series of null": ("series", whole(b"null"), "malformed"),
    "series silence": ("series", be_silent, "timeout"),
    "no series": ("series", whole(b"[7, null, {}]"), "absent"),
    "series denied": ("series", whole(DOE, status="401 No"), "denied"),
    "30,000 images": (
        "instances",
        whole(json.dumps([attributes(t00080018=f"1.{number}") for number in range(30_000)]).encode()),
        "too_large",
    ),
    "paths as UIDs": ("instances", whole(json.dumps([attributes(t00080018="../../x")]).encode()), "absent"),
    "instances as text": ("instances", whole(b'"' + DOE + b'"'), "absent"),
    "instances endless": ("instances", repeat(b"[],", head() + b"["), "too_large"),
    "instances deep": ("instances", whole(b'{"a":' * 100_000), "malformed"),
    "another patient's image": (
        "image",
        whole(part(image("1.7", "1.7.1", "1.7.1.1")), MULTIPART),
        "malformed",
    ),
    "another image of the study": (
        "image",
        whole(part(image("1.9.16", "1.9.1", "1.7.1.1")), MULTIPART),
        "malformed",
    ),
    "endless image": ("image", repeat(b"x", head(MULTIPART) + b"--b\r\nA: b\r\n\r\n"), "too_large"),
    "endless part header": ("image", repeat(b"x", head(MULTIPART) + b"--b\r\n"), "malformed"),
    "image drip": ("image", drip(head(MULTIPART) + part(b"x")[:-9]), "timeout"),
    "image as HTML": ("image", whole(b"<p>" + DOE, "text/html"), "malformed"),
    "image without boundary": ("image", whole(part(b"x"), "multipart/related"), "malformed"),
    "two parts": ("image", whole(part(b"x")[:-4] + b"\r\n\r\n" + part(b"y"), MULTIPART), "malformed"),
    "image redirected": (
        "image",
        say(head("a/b", "Location: http://127.0.0.1:1/", status="307 There")),
        "refused",
    ),
    "image gzip": ("image", whole(part(b"x"), MULTIPART, "Content-Encoding: gzip"), "malformed"),
    "image cut off": ("image", say(head(MULTIPART, "Content-Length: 900"), part(b"x")[:30]), "unavailable"),
    "image chunk header": (
        "image",
        repeat(b"0", head(MULTIPART, "Transfer-Encoding: chunked")),
        "unavailable",
    ),
    "store refused at length": ("store", repeat(DOE, head("text/html", status="409 Conflict")), "too_large"),
    "store answered deeply": ("store", whole(b'{"00081198":' + DEEP), "malformed"),
    "store too large": ("store", whole(DOE, status="413 Large"), "too_large"),
    "store asks to wait": ("store", whole(b"", "a/b", "Retry-After: 1200", status="429 Busy"), "overloaded"),
    "store answered by XML": (
        "store",
        whole(b'<!DOCTYPE x [<!ENTITY a "Doe">]><x>' + b"&a;" * 9, "application/dicom+xml"),
        "malformed",
    ),
    "store silence": ("store", be_silent, "timeout"),
    "store redirected": (
        "store",
        say(head("a/b", "Location: http://127.0.0.1:1/", status="308 There")),
        "refused",
    ),
}


@dataclass(eq=False)
class HostileArchive:
    """State of the archive."""

    lists: list[Behaviour] = field(default_factory=lambda: [behaviour for behaviour, _ in LISTS.values()])
    stored: list[str] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, query: str, peer: socket.socket) -> None:
        words = path.strip("/").split("/")
        stage = self._stage(method, words)
        if stage == "studies":
            with self.lock:
                behaviour = self.lists.pop(0) if self.lists and "offset=0" in query else None
            uids = [SOUND_STUDY, *map(study_uid, range(len(STUDIES)))] if "offset=0" in query else []
            (behaviour or whole(json.dumps([attributes(t0020000D=uid) for uid in uids]).encode()))(peer)
            return
        study = words[1]
        for number, (place, behaviour, _) in enumerate(STUDIES.values()):
            if study == study_uid(number) and place == stage and "offset=0" in (query or "offset=0"):
                behaviour(peer)
                return
        self._answer_soundly(stage, study, words, query, peer)

    def _stage(self, method: str, words: list[str]) -> str:
        if method == "POST":
            return "store"
        if words == ["studies"]:
            return "studies"
        if len(words) == 3 and words[2] == "instances":
            return "held"
        return {3: "series", 5: "instances", 6: "image"}[len(words)]

    def _answer_soundly(
        self, stage: str, study: str, words: list[str], query: str, peer: socket.socket
    ) -> None:
        if stage == "store":
            self.stored.append(study)
            whole(b"{}")(peer)
        elif stage == "image":
            whole(part(image(study, words[3], words[5])), MULTIPART)(peer)
        elif stage == "held" or "offset=0" not in query:
            whole(b"[]")(peer)
        elif stage == "series":
            series = attributes(
                t0020000E=f"{study}.1", t00080060="MR", t00081030="LUMBAR", t00201209=_NUM_IMAGES
            )
            whole(json.dumps([series]).encode())(peer)
        else:
            # The same image several times is one.
            uids = [f"{study}.1.{number % _NUM_IMAGES}" for number in range(47)]
            whole(json.dumps([attributes(t00080018=uid) for uid in uids]).encode())(peer)


def study_uid(number: int) -> str:
    return f"1.9.{number + 1}"


@contextmanager
def serve_hostile_archive() -> Iterator[HostileArchive]:
    """Serves the archive on a free port for the duration of a block."""
    archive = HostileArchive()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            method, target, _ = self.rfile.readline().decode("latin-1").split(" ", 2)
            length, is_chunked = 0, False
            while (line := self.rfile.readline().strip().lower()) != b"":
                length = int(line[15:]) if line.startswith(b"content-length:") else length
                is_chunked |= line.startswith(b"transfer-encoding:")
            while is_chunked and (size := int(self.rfile.readline(), 16)):
                self.rfile.read(size + 2)
            self.rfile.read(length)
            path, _, query = target.partition("?")
            with suppress(OSError):
                archive.answer(method, path, query, self.connection)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Prints nothing: clients close connections early here."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        archive.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield archive
        finally:
            server.shutdown()
