"""Devices and a real host over real connections: what one tells is what the other knows, whatever breaks."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from simulators.crooked import Crooked, crooked
from simulators.home import own, teach
from simulators.hosting import Hosted, hosting
from simulators.loopback import make_certificate, serving

from edge_cl.config import Settings, SyncSettings, write_settings
from edge_cl.device.staged import settings_of
from edge_cl.device.sync.enrolment import enrol
from edge_cl.device.sync.outbox import open_outbox
from edge_cl.device.sync.session import RefusedError, RevokedError
from edge_cl.device.sync.syncing import Synced, sync
from edge_cl.device.transport import Limits, Transport
from edge_cl.errors import ConfigError, MismatchError, StoreBusyError, TransportError
from edge_cl.learning import increment
from edge_cl.wire.codec import decode
from edge_cl.wire.enrolment import Code, write_code
from edge_cl.wire.labels import Edits
from edge_cl.wire.messages import Features
from host_trainer.retraining.told import Told, moved, taken_in
from host_trainer.server import classes, devices

QUICK = Limits(connect_s=5, silence_s=5, document_s=5, answer_s=10, slowest_bytes_s=1e9)
IMPATIENT = Limits(connect_s=2, silence_s=0.2, document_s=1, answer_s=0.4, slowest_bytes_s=1e9)
POSITIONS = 2  # at which the network is cut in the quick test, in each direction


@pytest.fixture
def home(furnished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(furnished, tmp_path / "state"))


@pytest.fixture
def enrolled(home: Path, host: Hosted) -> Path:
    enrol(home, host.url, host.code("pi-1"), ("cpu",))
    return home


def meet(state: Path, limits: Limits = QUICK, when: datetime | None = None) -> Synced:
    now = when or datetime.now(timezone.utc)
    return sync(state, now, transport=lambda pin: Transport(None, limits, pin))


def rules(state: Path, **values: object) -> None:
    """Write [sync] of a state folder."""
    settings = settings_of(state)
    write_settings(
        state, Settings(settings.learner, settings.teaching, settings.engine, SyncSettings(**values))
    )


def heard(host: Hosted, device: str = "pi-1", edits: Edits = ()) -> Told | None:
    """What the statistics that a host holds of a device come to."""
    told = None
    rows = [each for each in host.contents.listed() if each.device == device and each.level == "statistics"]
    messages = [(each.id, decode(host.contents.read(each))) for each in rows]
    for name, message in sorted(messages, key=lambda pair: pair[1].number):
        told = taken_in(told, message, name, edits)
    return told if told is None else moved(told, edits, len(edits))


def check(state: Path, told: Told | None) -> None:
    mine = own(state)
    assert told is not None
    assert set(told.labels) == set(mine.labels)
    places = increment.places(mine.labels, told.labels)
    assert told.counts[places].tolist() == mine.statistics.counts.tolist()
    assert np.array_equal(told.sums[places], mine.statistics.sums)


def test_a_device_tells_once_and_then_only_what_is_new(enrolled: Path, host: Hosted) -> None:
    first, second = meet(enrolled), meet(enrolled)
    check(enrolled, heard(host))
    assert [each.level for each in first.sent.contents] == ["statistics"]
    assert second.traffic.up < 2_000 > second.traffic.down
    teach(enrolled, "bowl", 4)
    meet(enrolled)
    check(enrolled, heard(host))


def test_weeks_offline_take_one_round(enrolled: Path, host: Hosted) -> None:
    with crooked(host.url) as way:
        point_to(enrolled, f"http://127.0.0.1:{way.port}")
        way.is_plugged = True
        now = datetime.now(timezone.utc)
        for day in (0, 10, 30):
            teach(enrolled, f"class {day}", 4)
            with pytest.raises(TransportError):
                meet(enrolled, IMPATIENT, now + timedelta(days=day))
        with open_outbox(enrolled) as outbox:
            standing = outbox.standing()
            assert standing.attempt == 3
            assert standing.due >= int((now + timedelta(days=30)).timestamp())
            assert len(outbox.outgoing()) == 1  # and not one for each attempt
    with pytest.raises(TransportError):
        meet(enrolled)
    point_to(enrolled, host.url)
    meet(enrolled)
    check(enrolled, heard(host))


def point_to(state: Path, url: str) -> None:
    """Let the way to the host lead elsewhere."""
    with open_outbox(state) as outbox:
        enrolment = outbox.enrolment()
        assert enrolment is not None
        outbox.enrol(enrolment._replace(url=url), 0)


# -- the network -----------------------------------------------------------------------------------------


@pytest.fixture
def way(host: Hosted) -> Iterator[Crooked]:
    with crooked(host.url) as found:
        yield found


def cut_everywhere(furnished: Path, host: Hosted, tmp_path: Path, positions: int) -> None:
    """Cut a round of features and statistics at bytes spread over it; the next one brings all, once."""
    with crooked(host.url) as whole:
        up, down = one_cut(furnished, host, tmp_path / "whole", whole, "whole")
    for is_up, total in ((True, up), (False, down)):
        for step in range(positions):
            position, name = total * step // positions, f"{'up' if is_up else 'down'}-{step}"
            with crooked(host.url) as way:
                way.is_reset = step % 2 == 1
                way.cut_up, way.cut_down = (position, None) if is_up else (None, position)
                one_cut(furnished, host, tmp_path / name, way, name)


def one_cut(furnished: Path, host: Hosted, state: Path, way: Crooked, name: str) -> tuple[int, int]:
    shutil.copytree(furnished, state)
    rules(state, level="features")
    enrol(state, host.url, host.code(name), ("cpu",))
    point_to(state, f"http://127.0.0.1:{way.port}")
    if way.cut_up is not None or way.cut_down is not None:
        with pytest.raises(TransportError):
            meet(state)
        teach(state, "bowl", 3)
        way.cut_up = way.cut_down = None
    meet(state)
    carried = way.up, way.down
    check(state, heard(host, name))
    rows = [each for each in host.contents.listed() if each.device == name and each.level == "features"]
    found = [decode(host.contents.read(each), Features) for each in rows]
    numbers = [number for each in found for number in each.samples.tolist()]
    assert sorted(numbers) == list(range(1, 1 + len(numbers)))
    assert len(numbers) == own(state).statistics.counts.sum() // 12
    shutil.rmtree(state)
    return carried


def test_a_round_that_is_cut_at_some_byte_converges(furnished: Path, host: Hosted, tmp_path: Path) -> None:
    cut_everywhere(furnished, host, tmp_path, POSITIONS)


@pytest.mark.slow
def test_a_round_that_is_cut_at_many_bytes_converges(furnished: Path, host: Hosted, tmp_path: Path) -> None:
    cut_everywhere(furnished, host, tmp_path, 20)


def test_a_slow_network_is_waited_for_and_a_dead_one_is_not(
    enrolled: Path, host: Hosted, way: Crooked
) -> None:
    point_to(enrolled, f"http://127.0.0.1:{way.port}")
    way.delay_s = 0.05
    meet(enrolled)
    way.is_plugged, begun = True, time.monotonic()
    with pytest.raises(TransportError, match="tried again later"):
        meet(enrolled, IMPATIENT)
    assert time.monotonic() - begun < 5


def test_an_upload_goes_on_where_it_was_cut(enrolled: Path, host: Hosted, way: Crooked, monkeypatch) -> None:
    monkeypatch.setattr("edge_cl.device.sync.session.MAX_CHUNK_BYTES", 500)
    rules(enrolled, level="features")
    point_to(enrolled, f"http://127.0.0.1:{way.port}")
    way.cut_up = 5_000
    with pytest.raises(TransportError):
        meet(enrolled)
    way.cut_up, before = None, way.up
    second = meet(enrolled)
    with crooked(host.url) as clean:
        shutil.rmtree(enrolled / "sync")
        enrol(enrolled, host.url, host.code("pi-2"), ("cpu",))
        point_to(enrolled, f"http://127.0.0.1:{clean.port}")
        whole = meet(enrolled)
        assert whole.traffic.up - second.traffic.up > 2_000  # what had come through was not sent again
    assert before < way.up


# -- who is who ------------------------------------------------------------------------------------------


def test_enrolment_over_tls_believes_only_the_certificate_of_the_code(
    home: Path, fleet: Path, tmp_path: Path
) -> None:
    with hosting(fleet, tls=True) as host:
        code = host.code("pi-1")
        stranger = make_certificate(tmp_path / "stranger.pem")
        with serving({}, stranger) as other, pytest.raises(TransportError, match="nothing was told"):
            enrol(home, other.url, code, ("cpu",))
        assert other.asked == []
        found = enrol(home, host.url, code, ("cpu",))
        assert (found.device, found.model, found.channel, found.level) == (
            "pi-1",
            "waste",
            "canary",
            "images",
        )
        meet(home)
        check(home, heard(host))
        with serving({}, stranger) as other:
            point_to(home, other.url.rstrip("/"))
            with pytest.raises(TransportError, match="not the host"):
                meet(home)
            assert other.asked == []


def test_a_code_that_is_wrong_used_up_or_for_another_address_is_refused_in_a_line(
    home: Path, host: Hosted
) -> None:
    code = host.code("pi-1")
    for url, text, words in (
        (host.url, code[:-1] + ("A" if code[-1] != "A" else "C"), "not a code"),
        (host.url, "nonsense", "not a code"),
        (host.url, write_code(Code(b"0123456789", b"f" * 32)), "with TLS: give its https address"),
        (host.url.replace("http", "https"), code, "without TLS"),
        ("http://192.0.2.7:8443", code, "in the clear"),
        ("https://", code, "no address"),
        (host.url, write_code(Code(b"0123456789")), "lets nobody in"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            enrol(home, url, text, ("cpu",))
        assert "\n" not in str(caught.value)
    enrol(home, host.url, code, ("cpu",))
    other = home.with_name("other")
    shutil.copytree(home, other)
    shutil.rmtree(other / "sync")
    with pytest.raises(ConfigError, match="lets nobody in"):
        enrol(other, host.url, code, ("cpu",))


def test_an_answer_that_was_lost_is_got_again_with_the_same_code(
    home: Path, host: Hosted, way: Crooked
) -> None:
    code, url = host.code("pi-1"), f"http://127.0.0.1:{way.port}"
    way.cut_down = 10
    with pytest.raises(TransportError):
        enrol(home, url, code, ("cpu",))
    way.cut_down = None
    assert enrol(home, url, code, ("cpu",)).device == "pi-1"
    meet(home)
    check(home, heard(host))


def test_another_host_is_refused_until_the_first_is_left(home: Path, fleet: Path, host: Hosted) -> None:
    enrol(home, host.url, host.code("pi-1"), ("cpu",))
    with pytest.raises(ConfigError, match="another host"):
        enrol(home, "https://host.example", write_code(Code(b"0123456789", b"f" * 32)), ("cpu",))


def test_who_is_not_enrolled_is_told_how(home: Path) -> None:
    with pytest.raises(ConfigError, match="edge-cl init --host"):
        meet(home)


def test_a_revoked_device_says_so_and_asks_no_more_until_it_is_let_in_again(
    enrolled: Path, host: Hosted
) -> None:
    meet(enrolled)
    with host.fleet.database.writing() as session:
        devices.revoke(session, "pi-1")
    teach(enrolled, "bowl", 4)
    for _ in range(2):  # the second is not even asked
        with pytest.raises(RevokedError, match="new code"):
            meet(enrolled)
    enrol(enrolled, host.url, host.code("pi-1"), ("cpu",))
    meet(enrolled)
    check(enrolled, heard(host))


def test_a_device_with_a_wrong_clock_goes_by_the_hosts(enrolled: Path, host: Hosted) -> None:
    for when in (datetime(1970, 1, 2, tzinfo=timezone.utc), datetime(2037, 1, 2, tzinfo=timezone.utc)):
        meet(enrolled, when=when)
        check(enrolled, heard(host))


def test_an_old_copy_of_the_outbox_catches_up(enrolled: Path, host: Hosted, tmp_path: Path) -> None:
    shutil.copytree(enrolled / "sync", tmp_path / "old")
    meet(enrolled)
    teach(enrolled, "bowl", 4)
    meet(enrolled)
    shutil.rmtree(enrolled / "sync")
    shutil.copytree(tmp_path / "old", enrolled / "sync")
    meet(enrolled)
    check(enrolled, heard(host))
    meet(enrolled)


def test_two_syncs_at_once_are_one(enrolled: Path, host: Hosted, way: Crooked) -> None:
    point_to(enrolled, f"http://127.0.0.1:{way.port}")
    way.delay_s = 0.2
    found: list[object] = []
    first = threading.Thread(target=lambda: found.append(meet(enrolled)))
    first.start()
    deadline = time.monotonic() + 5
    while way.up == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(StoreBusyError):
        meet(enrolled)
    first.join()
    assert len(found) == 1
    check(enrolled, heard(host))


def test_somebody_who_is_no_host_is_named(enrolled: Path) -> None:
    with serving({}) as other:
        point_to(enrolled, other.url.rstrip("/"))
        with pytest.raises(TransportError, match="look at its address"):
            meet(enrolled)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        point_to(enrolled, f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(TransportError):
            meet(enrolled, IMPATIENT)


# -- names of classes ------------------------------------------------------------------------------------


def edit(host: Hosted, sources: list[str], into: str) -> None:
    with host.fleet.database.writing() as session:
        classes.edit(session, sources, into, int(time.time()))


def test_the_fleets_names_are_followed_and_both_ends_agree(enrolled: Path, host: Hosted) -> None:
    meet(enrolled)
    edit(host, ["mug"], "cup")
    edit(host, ["cup", "lamp"], "thing")
    assert meet(enrolled).followed == 2
    assert set(own(enrolled).labels) == {"thing", "fork"}
    meet(enrolled)
    with host.fleet.database.reading() as session:
        edits = classes.lacking(session, 0)
    check(enrolled, heard(host, edits=edits))


def test_a_busy_learner_follows_later(enrolled: Path, host: Hosted) -> None:
    meet(enrolled)
    edit(host, ["mug"], "cup")
    from edge_cl.device.opening import open_agent

    with open_agent(enrolled):
        found = meet(enrolled)
    assert found.followed == 0
    assert "nobody else uses the learner" in found.notes[0]
    assert meet(enrolled).followed == 1


# -- quota, level, version -------------------------------------------------------------------------------


def test_a_lower_level_of_the_host_is_kept_to(home: Path, host: Hosted) -> None:
    enrol(home, host.url, host.code("pi-1", level="statistics"), ("cpu",))
    rules(home, level="images")
    found = meet(home)
    assert {each.level for each in found.sent.contents} == {"statistics"}


def test_what_exceeds_the_quota_waits(home: Path, fleet: Path) -> None:
    from host_trainer.server.limits import Limits as HostLimits

    with hosting(fleet, limits=HostLimits(quota_bytes=7_500)) as host:
        enrol(home, host.url, host.code("pi-1"), ("cpu",))
        rules(home, level="features")
        with pytest.raises(RefusedError, match="quota"):
            for _ in range(4):
                meet(home)
        check(home, heard(host))
    with open_outbox(home) as outbox:
        assert outbox.standing().due > time.time()


def test_errors_that_a_person_must_act_on_end_with_two() -> None:
    assert RevokedError("x").exit_status == MismatchError("x").exit_status == 2
    assert RefusedError("x").exit_status == TransportError("x").exit_status == 1
