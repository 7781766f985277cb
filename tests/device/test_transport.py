"""The network as it is: a real server on this machine, that answers well, slowly, without end, or never."""

import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.loopback import Loopback, make_certificate, serving
from simulators.publisher import MODEL, Publisher
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from edge_cl.device.releases.client import enrol, open_releases
from edge_cl.device.transport import Limits, Question, Transport, checked_url
from edge_cl.errors import ConfigError, ProtocolError, TransportError
from edge_cl.wire.release import Board, Facts

DATA = bytes(range(256)) * 2_000
QUICK = Limits(connect_s=2, silence_s=0.4, document_s=0.6, slowest_bytes_s=1e9)
PATIENT = Limits(silence_s=5, document_s=5)
ENOUGH_S = 5.0  # a slow peer is left long before
BOARD = Board(("cpu",), "0.1.0")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving({"file": DATA}) as loopback:
        yield loopback


def got(server: Loopback, start: int = 0, limits: Limits = PATIENT) -> bytes:
    return b"".join(Transport(limits=limits).fetch_from(f"{server.url}file", start, len(DATA)))


@pytest.mark.parametrize("start", [0, 1, 100_000, len(DATA) - 1])
@pytest.mark.parametrize("manner", ["good", "no ranges"])
def test_a_file_comes_from_any_byte_on_even_from_a_server_without_ranges(
    server: Loopback, manner: str, start: int
) -> None:
    server.manner = manner
    assert got(server, start) == DATA[start:]
    assert server.asked == [("file", f"bytes={start}-" if start else "")]


def test_the_library_reads_through_it(server: Loopback) -> None:
    assert Transport(limits=PATIENT).download_bytes(f"{server.url}file", len(DATA)) == DATA


def test_a_range_that_is_not_the_one_asked_for_is_refused(server: Loopback) -> None:
    server.manner = "wrong range"
    with pytest.raises(DownloadHTTPError):
        got(server, 5)


def test_a_file_that_is_missing_is_told_with_its_status(server: Loopback) -> None:
    with pytest.raises(DownloadHTTPError) as caught:
        Transport(limits=PATIENT).fetch(f"{server.url}nothing")
    assert caught.value.status_code == 404


def test_nobody_is_sent_elsewhere(server: Loopback) -> None:
    server.manner = "redirect"
    with pytest.raises(DownloadHTTPError) as caught:
        got(server)
    assert caught.value.status_code == 302
    assert len(server.asked) == 1


def test_a_body_shorter_than_announced_is_no_whole_file(server: Loopback) -> None:
    server.manner = "lie"
    with pytest.raises(DownloadError):
        got(server)


@pytest.mark.parametrize("manner", ["dribble body", "dribble head", "silent"])
def test_a_slow_peer_is_left_in_time(server: Loopback, manner: str) -> None:
    # Each byte comes well within the silence allowed: only the deadline of the whole helps.
    server.manner, begun = manner, time.monotonic()
    with pytest.raises(SlowRetrievalError):
        got(server, limits=QUICK)
    with pytest.raises(SlowRetrievalError):
        Transport(limits=QUICK).download_bytes(f"{server.url}file", len(DATA))
    assert time.monotonic() - begun < ENOUGH_S


def test_an_endless_peer_is_cut_at_the_length_allowed(server: Loopback) -> None:
    server.manner = "endless"
    with pytest.raises(DownloadLengthMismatchError):
        Transport(limits=PATIENT).download_bytes(f"{server.url}file", len(DATA))


def test_no_server_is_a_matter_of_the_network() -> None:
    with serving({}) as server:
        url = server.url
    with pytest.raises(DownloadError):
        Transport(limits=QUICK).fetch(url)


def test_no_thread_stays_behind(server: Loopback) -> None:
    before = threading.active_count()
    for _ in range(5):
        got(server)
    deadline = time.monotonic() + ENOUGH_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the server's own
    assert threading.active_count() <= before


# -- whom it believes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/",
        "http://192.168.1.20:8443/",
        "http://127.0.0.1@host.example/",
        "https://user:word@host.example/",
        "http://localhost.host.example/",
        "file:///etc/passwd",
        "host.example",
        "http://[::2]/",
        "",
        "https://",
        "http://[",
    ],
)
def test_an_address_that_may_not_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        checked_url(url)


@pytest.mark.parametrize(
    "url", ["https://host.example:8443/x", "http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/"]
)
def test_an_address_that_may_be_used_is_taken(url: str) -> None:
    assert checked_url(url).host


def test_the_pinned_certificate_is_believed_and_no_other(tmp_path: Path) -> None:
    mine, other = (make_certificate(tmp_path / name) for name in ("mine.pem", "other.pem"))
    with serving({"file": DATA}, mine) as server:
        url = f"{server.url}file"
        assert Transport(mine, PATIENT).download_bytes(url, len(DATA)) == DATA
        for stranger in (Transport(other, QUICK), Transport(None, QUICK)):
            with pytest.raises(DownloadError, match=r"(?i)certificate"):
                stranger.download_bytes(url, len(DATA))
    assert len(server.asked) == 1


def test_a_certificate_for_another_name_is_not_believed(tmp_path: Path) -> None:
    named = make_certificate(tmp_path / "named.pem", "192.0.2.1")
    with serving({"file": DATA}, named) as server, pytest.raises(DownloadError, match=r"(?i)certificate"):
        Transport(named, QUICK).download_bytes(f"{server.url}file", len(DATA))


def test_slowness_over_tls_is_left_in_time_too(tmp_path: Path) -> None:
    mine = make_certificate(tmp_path / "mine.pem")
    with serving({"file": DATA}, mine) as server:
        server.manner = "dribble body"
        with pytest.raises(SlowRetrievalError):
            Transport(mine, QUICK).download_bytes(f"{server.url}file", len(DATA))


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    for path in (tmp_path / "no.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match=path.name):
            Transport(path)


def fingerprint(certificate: Path) -> bytes:
    """SHA-256 of the certificate in a PEM file."""
    return hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(certificate.read_text().partition("-----BEGIN PRIV")[0])
    ).digest()


def test_with_a_fingerprint_that_very_certificate_is_believed_whatever_it_says(tmp_path: Path) -> None:
    named = make_certificate(tmp_path / "named.pem", "192.0.2.1")
    other = make_certificate(tmp_path / "other.pem")
    with serving({"file": DATA}, named) as server:
        network = Transport(None, PATIENT, fingerprint(named))
        assert network.download_bytes(f"{server.url}file", len(DATA)) == DATA
        with network.talk(server.url) as talk:
            assert talk.ask(Question("POST", "/file", b"question"), len(DATA)).body == DATA
        with (
            Transport(None, PATIENT, fingerprint(other)).talk(server.url) as talk,
            pytest.raises(TransportError, match="nothing was told"),
        ):
            talk.ask(Question("POST", "/file", b"secret"), len(DATA))
    assert server.posted == [b"question"]


# -- talking ---------------------------------------------------------------------------------------------


def test_a_question_is_answered_whatever_the_status(server: Loopback) -> None:
    with Transport(None, PATIENT).talk(server.url) as talk:
        good = talk.ask(Question("POST", "/file", b"one", {"X-Mine": "1"}), len(DATA))
        assert (good.status, good.body) == (200, DATA)
        assert talk.ask(Question("GET", "/nothing"), 10_000).status == 404
        assert (talk.sent_bytes, server.posted) == (3, [b"one"])
        assert talk.received_bytes > len(DATA)


@pytest.mark.parametrize("manner", ["dribble body", "dribble head", "silent"])
def test_a_slow_answer_is_left_in_time(server: Loopback, manner: str) -> None:
    server.manner, begun = manner, time.monotonic()
    limits = QUICK._replace(answer_s=0.6)
    with Transport(None, limits).talk(server.url) as talk, pytest.raises(TransportError, match="again later"):
        talk.ask(Question("POST", "/file", b"one"), len(DATA))
    assert time.monotonic() - begun < ENOUGH_S


def test_an_answer_without_end_is_cut(server: Loopback) -> None:
    server.manner = "endless"
    with Transport(None, PATIENT).talk(server.url) as talk, pytest.raises(ProtocolError, match="more than"):
        talk.ask(Question("POST", "/file", b"one"), 100_000)


def test_a_redirect_is_an_answer_like_another(server: Loopback) -> None:
    server.manner = "redirect"
    with Transport(None, PATIENT).talk(server.url) as talk:
        assert talk.ask(Question("POST", "/file", b"one"), 1_000).status == 302
    assert len(server.asked) == 1


# -- the whole way ---------------------------------------------------------------------------------------


def test_a_release_comes_over_a_real_network_that_breaks_in_the_middle(tmp_path: Path) -> None:
    publisher = Publisher()
    publisher.publish("b-1", DATA, Facts(1))
    enrol(tmp_path, publisher.root)
    with (
        serving(publisher.files) as server,
        open_releases(tmp_path, server.url, Transport(None, PATIENT)) as it,
    ):
        offer = it.ask(MODEL, "stable", BOARD, publisher.now).offer
        assert offer is not None
        server.cut = 200_000
        for _ in range(2):
            with pytest.raises(TransportError):
                it.fetch(offer)
        server.cut = None
        assert it.fetch(offer).read_bytes() == DATA
    assert [wanted for path, wanted in server.asked if "targets" in path][-2:] == [
        "bytes=200000-",
        "bytes=400000-",
    ]


@pytest.mark.parametrize(
    ("manner", "kind"),
    [("dribble body", TransportError), ("silent", TransportError), ("endless", ProtocolError)],
)
def test_a_bad_network_is_one_line_to_the_person(tmp_path: Path, manner: str, kind: type[Exception]) -> None:
    publisher = Publisher()
    enrol(tmp_path, publisher.root)
    with (
        serving(publisher.files) as server,
        open_releases(tmp_path, server.url, Transport(None, QUICK)) as it,
    ):
        server.manner = manner
        with pytest.raises(kind) as caught:
            it.ask(MODEL, "stable", BOARD, publisher.now)
    assert "\n" not in str(caught.value)
