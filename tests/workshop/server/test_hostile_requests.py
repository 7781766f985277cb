"""Requests that nobody means well: each has its status and one line, and nothing of it is stored."""

import contextlib
import hashlib
import itertools
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.caller import Answer, Caller, chunks, features, statistics
from simulators.hosting import Hosted, hosting
from simulators.listing import list_bundle
from sqlalchemy import select

from edge_cl.wire import canonical, codec, routes, signing
from edge_cl.wire.canonical import MAX_TEXT_BYTES
from edge_cl.wire.messages import MAX_CHUNK_BYTES, Welcome
from edge_cl.wire.signing import TIME_TOLERANCE_S, WINDOW
from host_trainer.server import devices
from host_trainer.server.limits import Limits
from host_trainer.server.rules.admission import Patience
from host_trainer.server.tables import Base

NOW = 1_800_000_000
LIMITS = Limits(head_s=0.5, idle_s=1, body_s=0.5)
NUMBERS = itertools.count(1)  # of devices
PATIENCE = Patience(tries=3, seconds=60.0)


class Time:
    """The host's clock."""

    now = NOW

    def __call__(self) -> float:
        return float(self.now)


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture(scope="module")
def host(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """A host for all who leave it as it is; each has devices of its own."""
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("shared") / "FLEET"))
    with hosting(folder, limits=LIMITS, clock=Time()) as hosted:
        yield hosted


@pytest.fixture
def device(host: Hosted) -> Caller:
    return joined(host)


def joined(host: Hosted, name: str = "") -> Caller:
    caller = Caller(host.url, NOW)
    assert caller.enrol(host.token(name or f"pi-{next(NUMBERS)}")).status == 200
    return caller


@pytest.fixture
def fresh(folder: Path, clock: Time) -> Iterator[Hosted]:
    """A host of one's own."""
    with hosting(folder, limits=replace(LIMITS, patience=PATIENCE), clock=clock) as hosted:
        yield hosted


def stored(host: Hosted) -> dict[str, Any]:
    """Return all that the host holds, but for what counts requests."""
    counted = ("counter", "window", "seen_at", "clock_offset")
    with host.fleet.database.reading() as session:
        rows = {
            table.name: [
                {name: value for name, value in row.items() if name not in counted}
                for row in session.execute(select(table)).mappings()
            ]
            for table in Base.metadata.sorted_tables
        }
    objects = host.fleet.folder / "objects"
    return {**rows, "objects": sorted(str(path) for path in objects.rglob("*"))}


@contextlib.contextmanager
def unchanged(host: Hosted) -> Iterator[None]:
    """Hold a block to storing nothing."""
    before = stored(host)
    yield
    assert stored(host) == before


def assert_refused(answer: Answer, status: int, reason: str) -> None:
    assert (answer.status, answer.reason) == (status, reason), answer
    assert b"Traceback" not in answer.body
    assert answer.headers[routes.TIME]


class TestSignature:
    def test_a_stolen_name_without_its_key_is_nobody(self, host: Hosted, device: Caller) -> None:
        thief = Caller(host.url, NOW, device.name, bytes(32), counter=100)
        stranger = Caller(host.url, NOW, "nobody", bytes(32))
        with unchanged(host):
            answers = [each.ask(each.greet(1)) for each in (thief, stranger)]
        for answer in answers:
            assert_refused(answer, 401, "unknown-device")
        assert answers[0].body == answers[1].body  # who asks without the key learns no names
        device.said(device.greet(1))  # and the thief's counter counts for nothing

    def test_a_request_that_comes_again_is_refused(self, host: Hosted, device: Caller) -> None:
        body = codec.encode(device.greet(1))
        headers = device.authorization("POST", routes.ROUND, body)
        assert device.request("POST", routes.ROUND, body, headers).status == 200
        with unchanged(host):
            answer = device.request("POST", routes.ROUND, body, headers)
        assert_refused(answer, 409, "stale")
        assert answer.headers[routes.COUNTER] == "1"

    def test_requests_that_overtake_each_other_count_once_each(self, device: Caller) -> None:
        body = codec.encode(device.greet(1))
        for counter in (5, 3, 4, 5 + WINDOW - 1, 7):
            headers = device.authorization("POST", routes.ROUND, body, counter)
            assert device.request("POST", routes.ROUND, body, headers).status == 200, counter
        for counter in (5, 7, 4):
            headers = device.authorization("POST", routes.ROUND, body, counter)
            assert_refused(device.request("POST", routes.ROUND, body, headers), 409, "stale")

    def test_a_revoked_device_is_shut_out_with_its_next_request(self, host: Hosted, device: Caller) -> None:
        device.said(device.greet(1))
        with host.fleet.database.writing() as session:
            devices.revoke(session, device.name)
        with unchanged(host):
            assert_refused(device.ask(device.commit(1)), 403, "revoked")
            assert_refused(device.registry(0), 403, "revoked")

    @pytest.mark.parametrize("offset", [TIME_TOLERANCE_S + 1, -TIME_TOLERANCE_S - 1, 10**9, -NOW])
    def test_a_device_with_a_wrong_clock_is_told_the_time(
        self, host: Hosted, device: Caller, offset: int
    ) -> None:
        device.now = NOW + offset
        with unchanged(host):
            answer = device.ask(device.greet(1))
        assert_refused(answer, 409, "stale")
        assert "clock" in answer.message.words  # type: ignore[attr-defined]
        device.now = int(answer.headers[routes.TIME])
        device.said(device.greet(1))

    @pytest.mark.parametrize("part", ["body", "target", "method"])
    def test_what_was_signed_for_something_else_is_nobody_s(
        self, host: Hosted, device: Caller, part: str
    ) -> None:
        body = codec.encode(device.greet(1))
        if part == "body":
            headers = device.authorization("POST", routes.ROUND, body + b"x")
        elif part == "target":
            headers = device.authorization("POST", f"{routes.ROUND}?other", body)
        else:
            headers = device.authorization("PUT", routes.ROUND, body)
        with unchanged(host):
            assert_refused(device.request("POST", routes.ROUND, body, headers), 401, "unknown-device")

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "Basic cGk6cGk=",
            "edge-cl-1 device=pi-1",
            "edge-cl-1 " + "x" * 5000,
            "edge-cl-1 device=../../etc,counter=1,time=1,signature=" + "0" * 64,
            "edge-cl-1 device=pi-1,counter=-1,time=1,signature=" + "0" * 64,
            "edge-cl-1 device=pi-1,counter=1,time=1,signature=" + "0" * 64 + ",admin=1",
        ],
    )
    def test_a_header_that_is_none_is_nobody_s(self, host: Hosted, device: Caller, header: str) -> None:
        with unchanged(host):
            answer = device.request("POST", routes.ROUND, b"", {"Authorization": header} if header else {})
        assert_refused(answer, 401, "unknown-device")
        assert answer.headers["www-authenticate"] == signing.SCHEME

    def test_two_signatures_are_none(self, host: Hosted, device: Caller) -> None:
        body = codec.encode(device.greet(1))
        line = device.authorization("POST", routes.ROUND, body)["Authorization"]
        raw = f"POST {routes.ROUND} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        raw += f"Authorization: {line}\r\nAuthorization: {line}\r\nConnection: close\r\n\r\n"
        assert b" 401 " in spoken(host, raw.encode() + body)


class TestBody:
    def test_a_message_for_another_device_is_refused(self, host: Hosted, device: Caller) -> None:
        with unchanged(host):
            assert_refused(device.ask(device.greet(1, device="other")), 400, "malformed")

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"ECLW",
            b"\x1f\x8b\x08" + bytes(100),
            codec.canonical(statistics("pi-1")),
            codec.encode(Welcome(1, 0, "images", None, (), 0)),
            codec.encode(chunks(statistics("pi-1"))[0])[:-1],
        ],
        ids=["nothing", "a beginning", "gzip", "a content", "a message of hosts", "a cut one"],
    )
    def test_what_is_no_message_is_refused(self, host: Hosted, device: Caller, body: bytes) -> None:
        with unchanged(host):
            assert_refused(device.send(body), 400, "malformed")

    def test_another_version_is_told(self, host: Hosted, device: Caller) -> None:
        body = bytearray(codec.encode(device.greet(1)))
        body[4] = 9
        with unchanged(host):
            answer = device.send(bytes(body))
        assert_refused(answer, 400, "version")
        assert "version 9" in answer.message.words  # type: ignore[attr-defined]

    def test_the_largest_chunk_is_not_too_large(self, host: Hosted, device: Caller) -> None:
        sent = features(device.name, tuple(range(1, 2000)), size=400)
        first, second, *_ = chunks(sent, MAX_CHUNK_BYTES)
        assert len(codec.encode(second)) > MAX_CHUNK_BYTES  # nothing in it can be packed
        device.said(device.greet(1, sent))
        device.said(first)
        device.said(second)

    def test_one_byte_more_than_can_be_is_refused_before_it_is_read(
        self, host: Hosted, device: Caller
    ) -> None:
        most = codec.FRAME.size + MAX_TEXT_BYTES + MAX_CHUNK_BYTES
        headers = {**device.authorization("POST", routes.ROUND), "Content-Length": str(most + 1)}
        with unchanged(host):
            answer = device.request("POST", routes.ROUND, b"x", headers)
        assert_refused(answer, 413, "too-large")

    def test_a_body_without_length_is_cut_off_where_it_becomes_too_long(
        self, host: Hosted, device: Caller
    ) -> None:
        greeting = codec.encode(device.greet(1))
        head = f"POST {routes.ROUND} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
        head += f"Authorization: {device.authorization('POST', routes.ROUND)['Authorization']}\r\n\r\n"
        # The frame says how long it is, so that a greeting of 200 bytes is not read for 300 kB.
        raw = head.encode() + b"%x\r\n%s\r\n" % (len(greeting) + 1, greeting + b"x")
        with unchanged(host):
            assert b" 413 " in spoken(host, raw)

    def test_a_slow_body_is_given_up(self, host: Hosted, device: Caller) -> None:
        body = codec.encode(device.greet(1))
        headers = device.authorization("POST", routes.ROUND, body)
        head = f"POST {routes.ROUND} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: {headers['Authorization']}\r\n\r\n"
        with unchanged(host):
            started = time.monotonic()
            assert b" 408 " in spoken(host, head.encode() + body[:10])
            assert time.monotonic() - started < 5

    @pytest.mark.parametrize("beginning", [b"", b"POST /v1/round HTTP/1.1\r\nHost: h\r\n"])
    def test_a_slow_head_is_given_up(self, host: Hosted, beginning: bytes) -> None:
        started = time.monotonic()
        assert spoken(host, beginning) == b""
        assert time.monotonic() - started < 5

    def test_a_slow_head_after_a_good_request_is_given_up_too(self, host: Hosted) -> None:
        started = time.monotonic()
        first = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\nGET /heal"
        assert b"200 OK" in spoken(host, first)
        assert time.monotonic() - started < 5

    def test_a_head_that_has_no_end_is_cut_off(self, host: Hosted) -> None:
        raw = b"GET /health HTTP/1.1\r\nHost: h\r\n" + b"X-Padding: 0123456789\r\n" * 5000
        assert b" 400 " in spoken(host, raw)

    def test_a_body_in_a_wrapping_is_refused(self, host: Hosted, device: Caller) -> None:
        body = codec.encode(device.greet(1))
        headers = {**device.authorization("POST", routes.ROUND, body), "Content-Encoding": "gzip"}
        with unchanged(host):
            assert_refused(device.request("POST", routes.ROUND, body, headers), 415, "malformed")

    def test_two_lengths_are_refused(self, host: Hosted) -> None:
        raw = b"POST /v1/round HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
        assert b" 400 " in spoken(host, raw)

    def test_a_request_that_is_cut_off_changes_nothing(self, host: Hosted, device: Caller) -> None:
        body = codec.encode(device.greet(1))
        headers = device.authorization("POST", routes.ROUND, body)
        head = f"POST {routes.ROUND} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: {headers['Authorization']}\r\n\r\n"
        with unchanged(host):
            spoken(host, head.encode() + body[:10], hang_up=True)
            time.sleep(0.1)
        assert device.request("POST", routes.ROUND, body, headers).status == 200

    @pytest.mark.parametrize(
        "query", ["", "since=", "since=-1", "since=1&since=2", "since=01", "x=1", "since=1e9"]
    )
    def test_a_registry_is_asked_for_in_one_way(self, host: Hosted, device: Caller, query: str) -> None:
        target = f"{routes.REGISTRY}?{query}" if query else routes.REGISTRY
        answer = device.request("GET", target, headers=device.authorization("GET", target))
        assert_refused(answer, 400, "malformed")

    def test_a_question_with_a_body_is_refused(self, host: Hosted, device: Caller) -> None:
        target = f"{routes.REGISTRY}?since=0"
        answer = device.request("GET", target, b"body", device.authorization("GET", target))
        assert_refused(answer, 400, "malformed")


class TestCode:
    def test_a_code_lets_one_device_in(self, fresh: Hosted) -> None:
        token = fresh.token("pi-1", level="features")
        first, second = Caller(fresh.url, NOW), Caller(fresh.url, NOW)
        assert first.enrol(token, device="anything").status == 200
        assert first.enrolled is not None
        assert (first.name, first.enrolled.model, first.enrolled.level) == ("pi-1", "waste", "features")
        assert first.enrolled.root == fresh.fleet.place.trusted_root()
        with unchanged(fresh):
            assert_refused(second.enrol(token, nonce=b"1" * 16), 403, "code")

    def test_who_lost_the_answer_gets_it_again(self, fresh: Hosted) -> None:
        token, device = fresh.token("pi-1"), Caller(fresh.url, NOW)
        first = device.enrol(token)
        with unchanged(fresh):
            assert device.enrol(token).body == first.body
        device.said(device.greet(1))

    def test_a_code_is_good_for_its_time(self, fresh: Hosted, clock: Time) -> None:
        token = fresh.token("pi-1", ttl_s=60)
        clock.now += 60
        with unchanged(fresh):
            assert_refused(Caller(fresh.url, NOW).enrol(token), 403, "code")

    def test_a_device_that_is_set_up_anew_gets_a_new_key_and_the_old_one_ends(self, fresh: Hosted) -> None:
        tokens = [fresh.token("pi-1") for _ in range(2)]
        old, new = Caller(fresh.url, NOW), Caller(fresh.url, NOW)
        old.enrol(tokens[0])
        sent = statistics("pi-1")
        old.sync(7, sent)
        new.enrol(tokens[1], nonce=b"1" * 16)
        assert_refused(old.ask(old.greet(8)), 401, "unknown-device")
        new.said(new.greet(1))
        assert len(fresh.contents.listed()) == 1
        with unchanged(fresh):  # whoever kept the old code and nonce does not get the new key
            assert_refused(old.enrol(tokens[0]), 403, "code")

    def test_a_revoked_device_may_be_enrolled_again_but_not_by_its_old_code(self, fresh: Hosted) -> None:
        token = fresh.token("pi-2")
        other = Caller(fresh.url, NOW)
        other.enrol(token)
        with fresh.fleet.database.writing() as session:
            devices.revoke(session, "pi-2")
        assert_refused(other.enrol(token), 403, "revoked")
        other.enrol(fresh.token("pi-2"))
        other.said(other.greet(1))

    def test_a_code_for_many_gives_each_its_name(self, fresh: Hosted) -> None:
        token = fresh.token("pi", uses=3)
        names = []
        for number, wanted in enumerate(("", "", "kitchen")):
            caller = Caller(fresh.url, NOW)
            caller.enrol(token, nonce=bytes([number]) * 16, device=wanted)
            names.append(caller.name)
        assert names == ["pi", "pi-2", "kitchen"]
        assert_refused(Caller(fresh.url, NOW).enrol(token, nonce=b"9" * 16), 403, "code")

    def test_who_tries_codes_has_to_wait(self, fresh: Hosted, clock: Time) -> None:
        caller = Caller(fresh.url, NOW)
        for number in range(3):
            assert_refused(caller.enrol(bytes([number]) * 10), 403, "code")
        token = fresh.token("pi-1")
        answer = caller.enrol(token)
        assert_refused(answer, 429, "code")
        assert 0 < int(answer.headers["retry-after"]) <= 20
        clock.now += 20
        assert caller.enrol(token).status == 200

    def test_the_token_is_not_in_the_database(self, fresh: Hosted) -> None:
        token = fresh.token("pi-1")
        for path in fresh.fleet.folder.glob("fresh.db*"):
            data = path.read_bytes()
            assert token not in data
            assert token.hex().encode() not in data

    @pytest.mark.parametrize(
        "body", [b"", b"{}", b"[]", b"null", b'{"token":1.5}', b"\xff", b"[" * 60_000, b'{"a":1,"a":2}']
    )
    def test_what_is_no_question_is_refused(self, fresh: Hosted, body: bytes) -> None:
        with unchanged(fresh):
            answer = Caller(fresh.url, NOW).request("POST", routes.ENROLMENT, body)
        assert_refused(answer, 400, "malformed")
        assert canonical.read(answer.body).keys() == {"reason", "wait", "words"}

    def test_a_long_question_is_refused(self, fresh: Hosted) -> None:
        answer = Caller(fresh.url, NOW).request("POST", routes.ENROLMENT, b" " * (MAX_TEXT_BYTES + 1))
        assert_refused(answer, 413, "too-large")


SECRETS = [
    "/repository/../keys/online/timestamp-1.pem",
    "/repository/..%2fkeys/online/timestamp-1.pem",
    "/repository/%2e%2e/keys/online/timestamp-1.pem",
    "/repository/metadata/../../keys/online/timestamp-1.pem",
    "/repository/metadata/..%2f..%2fkeys%2fonline%2ftimestamp-1.pem",
    "/repository/metadata/%252e%252e/host.db",
    "/repository//etc/passwd",
    "/repository/metadata/timestamp.json%00.pem",
    "/repository/metadata/timestamp.json/",
    "/repository/metadata",
    "/repository/metadata/",
    "/repository/",
    "/repository",
    "/repository/metadata/Timestamp.json",
    "/repository/metadata/1.root.json~",
    "/repository/metadata/.part-timestamp.json",
    "/repository/targets/waste/canary/secret.pem",
    "/host.db",
    "/keys/online/timestamp-1.pem",
    "/..",
]


class TestRepository:
    @pytest.mark.parametrize("path", SECRETS)
    def test_no_name_leads_elsewhere(self, host: Hosted, path: str) -> None:
        (host.fleet.folder / "repository" / "targets" / "waste" / "canary").mkdir(parents=True, exist_ok=True)
        (host.fleet.folder / "repository" / "targets" / "waste" / "canary" / "secret.pem").write_text("key")
        assert_refused(Caller(host.url, NOW).request("GET", path), 404, "malformed")

    def test_files_come_whole_in_part_and_with_words_for_caches(self, host: Hosted) -> None:
        listed = list_bundle(host.fleet.folder, 3)
        data, caller = listed.file.read_bytes(), Caller(host.url, NOW)
        path = f"/repository/{listed.file.relative_to(host.fleet.folder / 'repository').as_posix()}"
        whole = caller.request("GET", path)
        assert (whole.status, whole.body) == (200, data)
        assert hashlib.sha256(whole.body).hexdigest() == listed.sha256
        assert whole.headers["etag"] == f'"{listed.sha256}"'
        assert "immutable" in whole.headers["cache-control"]
        head = caller.request("HEAD", path)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(data)))
        rest = caller.request("GET", path, headers={"Range": "bytes=10-"})
        assert (rest.status, rest.body) == (206, data[10:])
        assert rest.headers["content-range"] == f"bytes 10-{len(data) - 1}/{len(data)}"
        last = caller.request("GET", path, headers={"Range": "bytes=-5"})
        assert last.body == data[-5:]
        beyond = caller.request("GET", path, headers={"Range": f"bytes={len(data)}-"})
        assert beyond.status == 416
        changed = caller.request("GET", path, headers={"Range": "bytes=10-", "If-Range": '"other"'})
        assert (changed.status, changed.body) == (200, data)
        many = caller.request("GET", path, headers={"Range": "bytes=0-1," * 500 + "2-3"})
        assert (many.status, many.body) == (200, data)
        same = caller.request("GET", path, headers={"If-None-Match": whole.headers["etag"]})
        assert (same.status, same.body) == (304, b"")
        for nonsense in ("bytes=x-y", "bytes=9-1", "lines=1-2", "bytes=" + "9" * 5000):
            assert caller.request("GET", path, headers={"Range": nonsense}).status in (200, 206, 400, 416)

    def test_the_stamp_is_asked_for_again_each_time(self, host: Hosted) -> None:
        caller = Caller(host.url, NOW)
        stamp = caller.request("GET", "/repository/metadata/timestamp.json")
        root = caller.request("GET", "/repository/metadata/1.root.json")
        missing = caller.request("GET", "/repository/metadata/2.root.json")
        assert (stamp.status, stamp.headers["cache-control"]) == (200, "no-cache")
        assert (root.status, "immutable" in root.headers["cache-control"]) == (200, True)
        assert (missing.status, missing.headers["cache-control"]) == (404, "no-store")

    @pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE"])
    def test_nothing_is_put_there(self, host: Hosted, method: str) -> None:
        answer = Caller(host.url, NOW).request(method, "/repository/metadata/timestamp.json", b"x")
        assert_refused(answer, 405, "malformed")


class TestHost:
    def test_a_full_disk_is_told_and_nothing_is_lost(
        self, fresh: Hosted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent, device, host = statistics("pi-1"), joined(fresh, "pi-1"), fresh
        device.said(device.greet(1, sent))
        objects = host.fleet.folder / "objects"

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            answer = device.ask(chunks(sent)[0])
        assert_refused(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) > 0
        assert str(objects).encode() not in answer.body
        device.upload(sent)
        device.said(device.commit(1, sent))

    def test_a_lost_object_store_is_seen_in_its_health(self, fresh: Hosted) -> None:
        caller = Caller(fresh.url, NOW)
        assert caller.request("GET", "/health").status == 200
        shutil.rmtree(fresh.fleet.folder / "objects")
        assert_refused(caller.request("GET", "/health"), 503, "busy")

    def test_unknown_routes_and_methods_have_words(self, host: Hosted) -> None:
        caller = Caller(host.url, NOW)
        assert_refused(caller.request("GET", "/v1/nothing"), 404, "malformed")
        assert_refused(caller.request("GET", routes.ENROLMENT), 405, "malformed")

    def test_over_tls_the_certificate_is_the_one_of_the_code(self, folder: Path) -> None:
        with hosting(folder, clock=lambda: NOW, tls=True) as host:
            assert host.certificate is not None
            context = ssl.create_default_context(cafile=str(host.certificate.certificate))
            caller = Caller(host.url, NOW, context=context)
            assert caller.enrol(host.token("pi-1")).status == 200
            caller.said(caller.greet(1))
            shown = ssl.PEM_cert_to_DER_cert(
                ssl.get_server_certificate(("127.0.0.1", int(host.url.rpartition(":")[2])))
            )
            assert hashlib.sha256(shown).digest() == host.certificate.fingerprint
            assert b"200" not in spoken(host, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")

    def test_the_keys_are_for_their_owner_s_eyes(self, folder: Path) -> None:
        with hosting(folder, tls=True) as host:
            assert host.certificate is not None
            assert host.certificate.key.stat().st_mode & 0o077 == 0
            first = host.certificate
        with hosting(folder, tls=True) as host:
            assert host.certificate == first


def spoken(host: Hosted, raw: bytes, hang_up: bool = False) -> bytes:
    """Say raw bytes to the host, and return what it says until it closes the connection."""
    address, _, port = host.url.rpartition("//")[2].rpartition(":")
    with socket.create_connection((address, int(port)), timeout=10) as line:
        line.sendall(raw)
        if hang_up:
            return b""
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := line.recv(1 << 16):
                heard += piece
        return heard
