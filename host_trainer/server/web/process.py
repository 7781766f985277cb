"""Runs the application on a socket: uvicorn, with TLS or on this machine alone, punctual with slow heads."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_cl.errors import ConfigError
from host_trainer.server.certificate import Certificate
from host_trainer.server.limits import Limits

MAX_HEAD_BYTES = 16 << 10
GRACE_S = 10  # for requests under way when the server stops
BACKLOG = 1024


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 lets the system choose.

    Raises:
        ConfigError: the address is none of this machine's, or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host.strip("[]"), port))
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({reason}): choose another --host or --port"
        ) from error
    found.listen(BACKLOG)
    return found


def server_of(app: FastAPI, limits: Limits, certificate: Certificate | None) -> uvicorn.Server:
    """Return a server of the application; without a certificate it speaks plain HTTP, for loopback only."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_punctual(limits.head_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who is connected: a header can say anything
        limit_concurrency=limits.connections,
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_context_factory=None if certificate is None else lambda *_: _tls(certificate),
    )
    return uvicorn.Server(config)


def _tls(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def _punctual(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol, with a deadline for the head of each request; it has none of its own."""

    class Punctual(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._late = self.loop.call_later(seconds, self.transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.trailing_data[0]:  # the beginning of another head came along with this request
                self._watch()

        def _watch(self) -> None:
            is_answering = self.cycle is not None and not self.cycle.response_complete
            if is_answering and self._late is not None:
                self._late.cancel()
                self._late = None
            elif not is_answering and self._late is None:
                self._late = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._late is not None:
                self._late.cancel()
            super().connection_lost(exc)

    return Punctual


def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way are answered first."""
    server.run(sockets=sockets)


@contextlib.contextmanager
def running(server: uvicorn.Server, found: socket.socket) -> Iterator[None]:
    """Serve in a thread until the block ends."""
    import threading

    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[found])), daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
        found.close()
