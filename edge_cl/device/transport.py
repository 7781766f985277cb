"""Touches the network: gets files from the host over HTTP, from the middle where asked, and talks with it;
never without a deadline.

Behind the fetcher interface of `tuf.ngclient`, so that everything above it can be tried without a network.
HTTPS only, except to this machine itself; no redirect is followed, no proxy and no compression is used.
"""

import abc
import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from edge_cl.errors import ConfigError, ProtocolError, TransportError

PIECE_BYTES = 64 << 10  # read at most at a time
OK, PARTIAL, OUT_OF_RANGE = 200, 206, 416  # RFC 9110
logging.getLogger("urllib3").setLevel(logging.ERROR)  # what it warns of is an error here, of one line
STRANGER = "Fingerprints did not match"  # words of urllib3


class Limits(NamedTuple):
    """How long a peer may take; slowness is an attack that signatures do not stop."""

    connect_s: float = 10.0
    silence_s: float = 30.0  # between two pieces
    document_s: float = 60.0  # for a whole document of metadata, a few kB each
    slowest_bytes_s: float = (
        2_000.0  # of a file or a message: below, the attempt ends and the next one goes on
    )
    answer_s: float = 60.0  # from the last byte of a message to the last of its answer


class Fetcher(FetcherInterface):
    """What the library asks of a network, and going on in the middle of a file."""

    @abc.abstractmethod
    def fetch_from(self, url: str, start: int, size_bytes: int) -> Iterator[bytes]:
        """Yield a file of `size_bytes` bytes from byte `start` on.

        Raises:
            DownloadError: also its kinds, as for `fetch`, and while the pieces come.
        """


class Question(NamedTuple):
    """What a host is asked: method, path with query, body, and headers beside the usual ones."""

    method: str
    target: str
    body: bytes = b""
    headers: Mapping[str, str] = {}


class Answer(NamedTuple):
    """What a host answers: status, headers with names in small letters, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(Fetcher):
    """The network itself.

    Args:
        certificate: a PEM file; only what it holds, or what it signed, is believed to be the host. None: what
            the system believes.
        limits: how long a peer may take.
        fingerprint: SHA-256 of the host's certificate; given, only that very one is believed, whatever it
            says of names and dates, which a board without a clock cannot judge.

    Raises:
        ConfigError: the certificate cannot be read.
    """

    def __init__(
        self,
        certificate: Path | None = None,
        limits: Limits = Limits(),  # noqa: B008
        fingerprint: bytes = b"",
    ) -> None:
        self._limits, self._fingerprint = limits, fingerprint
        self._tls = _unnamed_tls() if fingerprint else _tls(certificate)

    def talk(self, url: str) -> "Talk":
        """Return a conversation with the host at an address; ConfigError for one that may not be used."""
        return Talk(self, checked_url(url), self._limits)

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._get(url, 0, self._limits.document_s)

    def fetch_from(self, url: str, start: int, size_bytes: int) -> Iterator[bytes]:
        """Yield a file from byte `start` on; a host that does not go on is read from the first byte."""
        seconds = self._limits.silence_s + (size_bytes - start) / self._limits.slowest_bytes_s
        return self._get(url, start, seconds)

    def _get(self, url: str, start: int, seconds: float) -> Iterator[bytes]:
        """Ask, and return the pieces once the answer has begun, so that a refusal is raised at the call."""
        exchange = _Exchange(self.connection(checked_url(url)), seconds)
        try:
            ranges = {"Range": f"bytes={start}-"} if start else {}
            question = Question("GET", _target(parse_url(url)), headers=ranges)
            response = exchange.ask(question, self._limits.silence_s)
            skip = _skip(response, url, start)
        except BaseException:
            exchange.close()
            raise
        return exchange.pieces(response, skip)

    def connection(self, place: Url) -> HTTPConnection:
        """Return a connection, not opened yet, to an address that was checked."""
        host, timeout = str(place.host).strip("[]"), self._limits.connect_s
        if place.scheme == "http":
            return HTTPConnection(host, place.port, timeout=timeout)
        if not self._fingerprint:
            return HTTPSConnection(host, place.port, timeout=timeout, ssl_context=self._tls)
        return HTTPSConnection(
            host,
            place.port,
            timeout=timeout,
            ssl_context=self._tls,
            assert_hostname=False,
            assert_fingerprint=self._fingerprint.hex(),
        )


class Talk:
    """Questions and answers over one connection, which is opened anew when it is lost; one thread at a time.

    Attributes:
        sent_bytes, received_bytes: of bodies so far, also of those that did not come through.
    """

    def __init__(self, transport: Transport, place: Url, limits: Limits) -> None:
        self._transport, self._place, self._limits = transport, place, limits
        self._connection: HTTPConnection | None = None
        self.sent_bytes = self.received_bytes = 0

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question, most_bytes: int) -> Answer:
        """Send a question and return its answer, whatever its status.

        Raises:
            TransportError: no answer, a slow one, or a stranger's. The host may have heard the question.
            ProtocolError: an answer of more than `most_bytes`.
        """
        try:
            return self._ask(question, most_bytes)
        except DownloadError as error:
            self.close()
            if STRANGER in str(error):
                raise TransportError(
                    f"{self._place.host} is not the host that the code came from, or somebody is in between:"
                    " nothing was told"
                ) from error
            raise TransportError(f"{error}: it is tried again later") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; the next question opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, question: Question, most_bytes: int) -> Answer:
        if self._connection is not None and not self._connection.is_connected:
            self.close()  # by the host, for want of questions
        if self._connection is None:
            self._connection = self._transport.connection(self._place)
        seconds = self._limits.answer_s + len(question.body) / self._limits.slowest_bytes_s
        exchange = _Exchange(self._connection, seconds)
        self.sent_bytes += len(question.body)
        try:
            response = exchange.ask(question, self._limits.silence_s)
            body = bytearray()
            for piece in exchange.pieces(response, 0, keep=True):
                body += piece
                self.received_bytes += len(piece)
                if len(body) > most_bytes:
                    raise ProtocolError(f"{self._place.host} answers with more than {most_bytes} bytes")
        except BaseException:
            exchange.close()  # the response holds the socket too
            raise
        exchange.end()
        headers = {name.lower(): value for name, value in response.headers.items()}
        # A head that is cut off is taken for a whole one by the library: hosts always say how long a body is.
        if "transfer-encoding" not in headers and headers.get("content-length") != str(len(body)):
            raise DownloadError(f"{self._place.host} was cut off in the middle of an answer")
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(response.status, headers, bytes(body))


class _Exchange:
    """One question and its answer; cut off when its time is up, however busily the peer goes on."""

    def __init__(self, connection: HTTPConnection, seconds: float) -> None:
        self._connection, self._seconds, self._is_late = connection, seconds, False
        self._response: BaseHTTPResponse | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def ask(self, question: Question, silence_s: float) -> BaseHTTPResponse:
        headers = {"Accept-Encoding": "identity", "User-Agent": "edge-cl", **question.headers}
        self._timer.start()
        with self._translated():
            if self._connection.sock is None:
                self._connection.connect()
            self._socket().settimeout(silence_s)
            self._connection.request(
                question.method,
                question.target,
                body=question.body or None,
                headers=headers,
                preload_content=False,
            )
            self._response = self._connection.getresponse()
        return self._response

    def pieces(self, response: BaseHTTPResponse, skip: int, keep: bool = False) -> Iterator[bytes]:
        """Yield the body as it comes, less its first `skip` bytes; `keep` leaves the connection open."""
        try:
            while True:
                with self._translated():
                    piece = response.read1(PIECE_BYTES, decode_content=False)
                if self._is_late:
                    raise self._slow()
                if not piece:
                    return
                if len(piece) > skip:
                    yield piece[skip:]
                skip = max(0, skip - len(piece))
        finally:
            if not keep:
                self.close()

    def end(self) -> None:
        """Let the clock stop; the connection stays."""
        self._timer.cancel()

    def close(self) -> None:
        self._timer.cancel()
        if self._response is not None:
            self._response.close()  # it holds the socket too
        self._connection.close()

    def _cut(self) -> None:
        self._is_late = True
        with contextlib.suppress(OSError, AttributeError):  # not connected yet, or not any more
            # Of the plain class: a TLS socket's own would take its state from under the reader.
            socket.socket.shutdown(self._socket(), socket.SHUT_RDWR)

    def _socket(self) -> socket.socket:
        held = self._connection.sock
        if held is None:
            raise AttributeError("no socket")
        return held

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DownloadError:
            raise
        except TimeoutError as error:
            raise SlowRetrievalError(f"{self._connection.host} is silent") from error
        except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
            if self._is_late:
                raise self._slow() from error
            if "timed out" in str(error):
                raise SlowRetrievalError(f"{self._connection.host} is silent") from error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DownloadError(f"{self._connection.host} does not answer as it should ({reason})") from error

    def _slow(self) -> SlowRetrievalError:
        return SlowRetrievalError(f"{self._connection.host} took longer than {self._seconds:.0f} s")


def checked_url(url: str) -> Url:
    """Return the parts of an address; plain HTTP is for this machine only.

    Raises:
        ConfigError: not an address of HTTPS, or of HTTP to a loopback address.
    """
    try:
        place = parse_url(url)
    except LocationParseError as error:
        raise ConfigError(f"{url!r} is no address: give one such as https://host:8443/") from error
    if place.host is None or place.scheme not in ("http", "https") or place.auth is not None:
        raise ConfigError(f"{url!r} is no address: give one such as https://host:8443/")
    if place.scheme == "http" and not _is_loopback(place.host.strip("[]")):
        raise ConfigError(f"{url} would travel in the clear: use https; http is for this machine itself only")
    return place


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls(certificate: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and its names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is None:
        context.load_default_certs()
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the host's own certificate may be what is pinned
    try:
        context.load_verify_locations(cafile=certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{certificate} is no certificate (PEM) that can be read: enrol again") from error
    return context


def _unnamed_tls() -> ssl.SSLContext:
    """Return a context that takes any certificate: which one it was is looked at before a word is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _target(place: Url) -> str:
    return place.request_uri


def _skip(response: BaseHTTPResponse, url: str, start: int) -> int:
    """Return how many bytes of a body come before `start`; DownloadHTTPError when it is no such body."""
    if response.status == OK:
        return start  # a host that knows no ranges
    begins = str(response.headers.get("Content-Range", ""))
    if start and response.status == PARTIAL and begins.startswith(f"bytes {start}-"):
        return 0
    raise DownloadHTTPError(f"{url} answers with status {response.status}", response.status)
