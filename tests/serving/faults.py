"""What goes wrong on purpose."""

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum


class Fault(Enum):
    """Of one attempt."""

    NONE = "none"
    UNAVAILABLE = "unavailable"
    EXHAUSTED = "exhausted"
    TIMEOUT = "timeout"
    RESET = "reset"
    OVERSIZED = "oversized"
    TRUNCATED = "truncated"
    REFUSED = "refused"


#: From the study's bytes and the number of the attempt, 1 for the first.
Plan = Callable[[bytes, int], Fault]


def no_faults(study: bytes, attempt: int) -> Fault:
    return Fault.NONE


class Attempts:
    """Counts how often each study was asked about; safe to use from several threads."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def next(self, study: bytes) -> int:
        with self._lock:
            self.counts[study] += 1
            return self.counts[study]


def reset(connection: socket.socket) -> None:
    """Closes a connection as a crash does: with RST, and what was on its way is lost."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    connection.close()


class Proxy:
    """Stands between client and server, and cuts every connection when told."""

    def __init__(self, port: int) -> None:
        """Takes the server's port and listens on one of its own."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        #: Bytes that clients have sent.
        self.num_sent = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Resets all connections."""
        with self._lock:
            cut, self._open = self._open, set()
        for connection in cut:
            reset(connection)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open |= {client, server}
                for words in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=words, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_question: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                self.num_sent += len(block) * is_question
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)
