"""A real HTTP server on this machine that serves files from memory, well or badly."""

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

PAUSE_S = 0.05  # between the bytes of a server that dribbles


class Loopback:
    """What is served and how; `url` ends in `/`.

    Attributes:
        files: by path without the first `/`.
        manner: "good", "no ranges", "wrong range", "dribble body", "dribble head", "silent", "endless",
            "lie", "redirect".
        cut: bytes of a body after which the connection is closed; None: never.
        asked: (path, header Range or "") of every request.
        posted: the body of every request that had one.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.manner, self.url = files, "good", ""
        self.cut: int | None = None
        self.asked: list[tuple[str, str]] = []
        self.posted: list[bytes] = []
        self.over = threading.Event()


@contextlib.contextmanager
def serving(files: dict[str, bytes], certificate: Path | None = None) -> Iterator[Loopback]:
    """Serve files until the block ends; over TLS where a PEM file with certificate and key is given."""
    loopback = Loopback(files)

    class Handler(_Handler):
        world = loopback

    server = _Server(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https"
    loopback.url = f"{scheme}://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield loopback
    finally:
        loopback.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def make_certificate(path: Path, address: str = "127.0.0.1") -> Path:
    """Write a self-signed certificate and its key into one PEM file."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would ask the name service for its own name, for seconds
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    world: Loopback
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):  # the client may have had enough
            self._answer()
        self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.world.posted.append(body)
        self.do_GET()

    def log_message(self, *_: object) -> None:
        return

    def _answer(self) -> None:
        world, wanted = self.world, self.headers.get("Range", "")
        world.asked.append((self.path[1:], wanted))
        data = world.files.get(self.path[1:])
        if data is None:
            self.send_error(404)
        elif world.manner == "redirect":
            self._head(302, 0, Location="/elsewhere")
        elif world.manner == "silent":
            world.over.wait(10)
        elif world.manner == "dribble head":
            self._dribble(b"HTTP/1.1 200 OK\r\n" + b"X-Padding: 1\r\n" * 1_000)
        elif world.manner == "dribble body":
            self._head(200, len(data))
            self._dribble(data)
        elif world.manner == "endless":
            self._head(200, None)
            while not world.over.is_set():
                self.wfile.write(bytes(1 << 16))
        elif world.manner == "lie":
            self._head(200, len(data) + 1_000)
            self.wfile.write(data)
        else:
            self._file(data, wanted)

    def _file(self, data: bytes, wanted: str) -> None:
        manner, start = self.world.manner, int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
        if start and manner != "no ranges":
            said = 0 if manner == "wrong range" else start
            last = len(data) - 1
            self._head(206, len(data) - start, **{"Content-Range": f"bytes {said}-{last}/{len(data)}"})
            data = data[start:]
        else:
            self._head(200, len(data))
        self.wfile.write(data[: self.world.cut])

    def _head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")  # as it does: a client that counts on it would ask nobody
        self.end_headers()

    def _dribble(self, data: bytes) -> None:
        for first in range(len(data)):
            if self.world.over.is_set():
                return
            self.wfile.write(data[first : first + 1])
            time.sleep(PAUSE_S)
