"""A stretch of network between a device and a host that can be cut, slowed down and plugged; real sockets."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

PIECE = 4096


class Crooked:
    """Carries bytes between whoever connects here and a port of this machine.

    Attributes:
        port: where it listens.
        cut_up, cut_down: bytes after which the connection breaks, counted over all of them; None: never.
        is_reset: whether it breaks with a reset instead of an end.
        delay_s: before each piece.
        is_plugged: takes connections, and nothing comes through.
        up, down: bytes carried so far.
    """

    def __init__(self, target: int) -> None:
        self._target, self._listener = target, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.is_reset = self.is_plugged = False
        self.delay_s = 0.0
        self.up = self.down = 0
        self._over = threading.Event()
        self._open: list[socket.socket] = []

    def serve(self) -> None:
        """Take connections until `close`."""
        while not self._over.is_set():
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            outer = socket.create_connection(("127.0.0.1", self._target))
            self._open += [inner, outer]
            for source, sink, is_up in ((inner, outer, True), (outer, inner, False)):
                threading.Thread(target=self._carry, args=(source, sink, is_up), daemon=True).start()

    def close(self) -> None:
        """Break what is open, and take no more."""
        self._over.set()
        self._listener.close()
        for each in self._open:
            _break(each, False)

    def _carry(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                if self.is_plugged and self._over.wait(30):
                    return
                time.sleep(self.delay_s)
                allowed = self._allowed(len(piece), is_up)
                sink.sendall(piece[:allowed])
                if allowed < len(piece):
                    break
        for each in (source, sink):
            _break(each, self.is_reset)

    def _allowed(self, count: int, is_up: bool) -> int:
        cut, carried = (self.cut_up, self.up) if is_up else (self.cut_down, self.down)
        allowed = count if cut is None else max(0, min(count, cut - carried))
        if is_up:
            self.up += allowed
        else:
            self.down += allowed
        return allowed


def _break(one: socket.socket, is_reset: bool) -> None:
    with contextlib.suppress(OSError):
        if is_reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Whoever waits for it in another thread holds it open; a reset comes with the last who lets go.
        one.shutdown(socket.SHUT_RD if is_reset else socket.SHUT_RDWR)
    one.close()


@contextlib.contextmanager
def crooked(url: str) -> Iterator[Crooked]:
    """Stand between whoever connects and the port of an address until the block ends."""
    way = Crooked(int(url.rpartition(":")[2].strip("/")))
    thread = threading.Thread(target=way.serve, daemon=True)
    thread.start()
    try:
        yield way
    finally:
        way.close()
        thread.join(1)
