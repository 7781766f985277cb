"""A device asks for releases and fetches them, on good days and on days when the power or the clock fails."""

import contextlib
import hashlib
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators.forgetful import ForgetfulDisk
from simulators.publisher import MODEL, START, URL, Mirror, Publisher

from edge_cl.device.releases.client import FOLDER, Answer, Releases, enrol, open_releases
from edge_cl.device.releases.download import download
from edge_cl.device.releases.marks import DATABASE, Mark, Marks, Seen, check, raised
from edge_cl.errors import (
    ConfigError,
    MismatchError,
    ReleaseError,
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    TransportError,
)
from edge_cl.wire.release import Board, Facts, Offer

BOARD = Board(("cpu",), "0.1.0")
DATA = bytes(range(256)) * 40


class Device:
    """A device that is enrolled, and its host as it sees it."""

    def __init__(self, state: Path, mirror: Mirror) -> None:
        self.state, self.mirror = state, mirror
        enrol(state, mirror.publisher.root)

    @contextmanager
    def open(self, max_bytes: int = 1 << 20) -> Iterator[Releases]:
        with open_releases(self.state, URL, self.mirror, max_bytes) as releases:
            yield releases

    def ask(self, channel: str = "stable", now: datetime | None = None, board: Board = BOARD) -> Answer:
        with self.open() as releases:
            return releases.ask(MODEL, channel, board, now or self.mirror.publisher.now)

    def fetch(self, channel: str = "stable") -> Path:
        with self.open() as releases:
            answer = releases.ask(MODEL, channel, BOARD, self.mirror.publisher.now)
            assert answer.offer is not None, answer
            return releases.fetch(answer.offer)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    publisher = Publisher()
    publisher.publish("b-1", DATA, Facts(1))
    return Device(tmp_path, Mirror(publisher))


# -- good days -------------------------------------------------------------------------------------------


def test_a_release_is_found_and_fetched(device: Device) -> None:
    assert device.fetch().read_bytes() == DATA
    assert device.ask().bundle == 1


def test_what_is_here_is_not_fetched_again(device: Device) -> None:
    device.fetch()
    before = len(device.mirror.asked)
    device.fetch()
    assert {path for path, _ in device.mirror.asked[before:]} == {
        "metadata/2.root.json",
        "metadata/timestamp.json",
    }


def test_a_promoted_release_arrives_in_the_next_channel(device: Device) -> None:
    device.mirror.publisher.publish("b-2", b"second", Facts(2), "canary")
    found = device.ask("beta").offer
    assert found is None
    device.mirror.publisher.promote("b-2", "beta")
    assert device.fetch("beta").read_bytes() == b"second"


def test_of_two_files_of_one_bundle_the_one_that_the_host_offers_is_taken(device: Device) -> None:
    publisher = device.mirror.publisher
    publisher.publish("b-2", b"whole and long", Facts(2))
    publisher.publish("b-2-from-1", b"lean", Facts(2))
    with device.open() as releases:
        for data in (b"lean", b"whole and long"):
            answer = releases.ask(MODEL, "stable", BOARD, publisher.now, 2, len(data))
            assert answer.offer is not None
            assert releases.fetch(answer.offer).read_bytes() == data


def test_a_key_that_is_rotated_in_peace_is_followed(device: Device) -> None:
    publisher = device.mirror.publisher
    device.fetch()
    for old in ("root-1", "targets-1", "snapshot-1", "timestamp-1", "trainer-1", "release-1"):
        publisher.rotate(old, f"{old.partition('-')[0]}-{10 if old == 'root-1' else 2}")
    publisher.publish("b-2", b"second", Facts(2))
    assert device.fetch().read_bytes() == b"second"


def test_a_device_without_a_host_says_how_to_enrol(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="edge-cl init"), open_releases(tmp_path, URL, Mirror(Publisher())):
        pass


def test_a_root_from_nowhere_is_no_root(tmp_path: Path) -> None:
    publisher = Publisher()
    forged = publisher.forge("1.root.json", lambda root: None, ["root-1"])  # one of two that must sign
    for root in (b"", b"{}", b"[" * 100_000, publisher.files["metadata/timestamp.json"], forged):
        with pytest.raises(ReleaseError, match="no root"):
            enrol(tmp_path, root)


def test_a_device_keeps_the_host_it_was_enrolled_with(device: Device) -> None:
    enrol(device.state, device.mirror.publisher.root)
    with pytest.raises(MismatchError, match="another host"):
        enrol(device.state, Publisher().root)


def test_a_device_that_is_let_in_again_after_a_key_was_changed_goes_on(device: Device) -> None:
    device.fetch()
    publisher = device.mirror.publisher
    publisher.rotate("root-1", "root-10")
    publisher.publish("b-2", b"second", Facts(2))
    enrol(device.state, publisher.files["metadata/2.root.json"])
    assert device.fetch().read_bytes() == b"second"
    stranger = Publisher()
    stranger.rotate("root-1", "root-10")
    with pytest.raises(MismatchError, match="another host"):
        enrol(device.state, stranger.files["metadata/2.root.json"])


def test_one_process_at_a_time(device: Device) -> None:
    with device.open(), pytest.raises(StoreBusyError), device.open():
        pass


def test_a_channel_that_is_not_there_is_named(device: Device) -> None:
    with device.open() as releases, pytest.raises(ReleaseError, match="apples-stable"):
        releases.ask("apples", "stable", BOARD, START)


# -- the power -------------------------------------------------------------------------------------------


def test_after_a_power_cut_no_older_state_is_believed(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, old = device.mirror.publisher, dict(device.mirror.publisher.files)
    publisher.publish("b-2", b"second", Facts(2))
    with ForgetfulDisk(device.state, monkeypatch) as disk:
        device.fetch()
    lost = disk.cut()
    assert not [path for path in lost if path.suffix == ".json"], "a document was not pushed through"
    device.mirror.instead = old
    with pytest.raises(ReleaseError):
        device.ask()
    device.mirror.instead = {}
    assert device.fetch().read_bytes() == b"second"


def test_even_with_every_document_emptied_the_marks_hold(device: Device) -> None:
    # What the library alone accepts: version 1 after version 2.
    publisher, old = device.mirror.publisher, dict(device.mirror.publisher.files)
    publisher.publish("b-2", b"second", Facts(2))
    device.fetch()
    for path in (device.state / FOLDER / "metadata").rglob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"")
    device.mirror.instead = old
    with pytest.raises(ReleaseError, match="was seen here"):
        device.ask()
    device.mirror.instead = {}
    assert device.fetch().read_bytes() == b"second"


def test_a_root_that_was_seen_cannot_be_hidden_after_a_power_cut(device: Device) -> None:
    publisher = device.mirror.publisher
    device.mirror.freeze()
    publisher.rotate("timestamp-1", "timestamp-2")
    device.mirror.instead, frozen = {}, device.mirror.instead
    device.ask()
    for path in (device.state / FOLDER / "metadata").rglob("*.json"):
        path.unlink()
    device.mirror.instead = {**frozen, "metadata/2.root.json": None}
    with pytest.raises(ReleaseError, match="root 1"):
        device.ask()


def test_the_marks_are_written_through(device: Device) -> None:
    device.ask()
    place = device.state / FOLDER
    marks = Marks(place)
    try:
        pragma = marks._connection.execute
        assert pragma("PRAGMA synchronous").fetchone() == (2,)
        assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        marks.close()


def test_damaged_marks_stop_the_installing_with_one_line(device: Device) -> None:
    device.ask()
    (device.state / FOLDER / DATABASE).write_bytes(b"x" * 8192)
    with pytest.raises(StoreError, match="enrol again") as caught:
        device.ask()
    assert "\n" not in str(caught.value)


def test_marks_of_another_program_are_not_taken(device: Device) -> None:
    with sqlite3.connect(device.state / FOLDER / DATABASE) as other:
        other.execute("PRAGMA user_version = 7")
    other.close()
    with pytest.raises(StoreDamagedError, match="enrol again"):
        device.ask()


def test_asking_again_writes_no_mark(device: Device) -> None:
    device.ask()
    before = (device.state / FOLDER / DATABASE).stat().st_mtime_ns
    device.ask()
    assert (device.state / FOLDER / DATABASE).stat().st_mtime_ns == before


# -- files that are cut ----------------------------------------------------------------------------------


def test_a_file_that_was_cut_goes_on_where_it_was(device: Device) -> None:
    device.mirror.cut = 3_000
    with pytest.raises(TransportError):
        device.fetch()
    device.mirror.cut = None
    assert device.fetch().read_bytes() == DATA
    assert [start for path, start in device.mirror.asked if path.startswith("targets")] == [0, 3_000]


def test_a_part_that_the_storage_spoilt_is_fetched_anew(device: Device) -> None:
    device.mirror.cut = 3_000
    with pytest.raises(TransportError):
        device.fetch()
    device.mirror.cut = None
    (part,) = (device.state / FOLDER / "downloads").glob("*.part")
    part.write_bytes(bytes(3_000))
    assert device.fetch().read_bytes() == DATA


def test_a_file_that_the_storage_spoilt_is_fetched_anew(device: Device) -> None:
    device.fetch().write_bytes(bytes(len(DATA)))
    assert device.fetch().read_bytes() == DATA


def test_what_was_begun_of_another_release_does_not_stay(device: Device) -> None:
    device.mirror.cut = 3_000
    with pytest.raises(TransportError):
        device.fetch()
    device.mirror.publisher.publish("b-2", b"second", Facts(2))
    path = device.fetch()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@settings(deadline=None)
@given(st.lists(st.integers(1, len(DATA)), max_size=6))
def test_however_often_it_is_cut_the_file_comes_whole(cuts: list[int]) -> None:
    offer = Offer("waste/stable/b-1", len(DATA), hashlib.sha256(DATA).hexdigest(), Facts(1))
    with TemporaryDirectory() as folder:
        for cut in cuts:
            with contextlib.suppress(TransportError):
                download(offer, Path(folder), lambda start, cut=cut: iter((DATA[start : start + cut],)))
        assert download(offer, Path(folder), lambda start: iter((DATA[start:],))).read_bytes() == DATA


def test_a_release_larger_than_allowed_is_not_begun(device: Device) -> None:
    with device.open(max_bytes=100) as releases:
        offer = releases.ask(MODEL, "stable", BOARD, START).offer
        assert offer is not None
        with pytest.raises(ReleaseError, match="more than 100"):
            releases.fetch(offer)
    assert not [path for path, _ in device.mirror.asked if path.startswith("targets")]


def test_a_storage_that_is_full_is_told_and_nothing_is_lost(device: Device) -> None:
    with device.open() as releases:
        offer = releases.ask(MODEL, "stable", BOARD, START).offer
        assert offer is not None
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
        try:
            with pytest.raises(StoreError, match="fetching a release failed"):
                releases.fetch(offer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert releases.fetch(offer).read_bytes() == DATA


# -- the clock -------------------------------------------------------------------------------------------


def test_a_board_that_woke_up_in_1970_still_syncs_and_is_told(device: Device) -> None:
    answer = device.ask(now=datetime(1970, 1, 1, tzinfo=timezone.utc))
    assert answer.offer is not None
    assert "1970-01-01" in answer.warning
    assert "2026-11-25" in answer.warning
    assert device.ask().warning == ""


def test_a_clock_that_fell_back_does_not_make_expired_documents_valid(device: Device) -> None:
    device.mirror.publisher.renew(days=70)  # the timestamp anew; the channel, of 60 days, has expired
    device.ask(now=START)  # nobody knows better yet
    with pytest.raises(ReleaseError, match="waste-stable is expired, it is 2027-02-03 here"):
        device.ask(now=START)


def test_a_clock_that_is_ahead_stops_nothing_but_new_installs(device: Device) -> None:
    path = device.fetch()
    device.mirror.publisher.publish("b-2", b"second", Facts(2))
    with pytest.raises(ReleaseError, match=r"it is 2036-.* What runs goes on"):
        device.ask(now=START + timedelta(days=3_660))
    assert path.read_bytes() == DATA
    assert device.fetch().read_bytes() == b"second"


def test_a_stolen_timestamp_key_does_not_set_the_clock_for_ever(device: Device) -> None:
    publisher = device.mirror.publisher

    def in_a_year(timestamp: object) -> None:
        timestamp.version = 900  # type: ignore[attr-defined]
        timestamp.expires = START + timedelta(days=400)  # type: ignore[attr-defined]
        timestamp.unrecognized_fields["issued"] = "2027-11-20T00:00:00Z"  # type: ignore[attr-defined]

    device.mirror.instead = {
        "metadata/timestamp.json": publisher.forge("timestamp.json", in_a_year, ["timestamp-1"])
    }
    with pytest.raises(ReleaseError):  # all else is expired by that time, at the latest the next time
        device.ask()
        device.ask()
    device.mirror.instead = {}
    publisher.rotate("timestamp-1", "timestamp-2")
    assert device.ask().offer is not None


# -- the rule of the marks -------------------------------------------------------------------------------

KEYS = st.frozensets(st.sampled_from("abcd"), min_size=1)
SEEN = st.builds(Seen, st.builds(Mark, st.integers(1, 9), KEYS, st.just(0), st.just(0)), st.just(1))


@given(st.lists(SEEN, min_size=1, max_size=12))
def test_while_keys_last_the_versions_believed_only_grow(history: list[Seen]) -> None:
    marks: dict[str, Mark] = {}
    believed: list[Mark] = []
    for seen in history:
        try:
            check(marks, {"role": seen})
        except ReleaseError:
            assert seen.mark.version < marks["role"].version
            continue
        if believed and believed[-1].keys & seen.mark.keys:
            assert seen.mark.version >= believed[-1].version
        believed.append(seen.mark)
        marks = raised(marks, {"role": seen})


def test_the_root_has_no_way_back_whatever_its_keys() -> None:
    with pytest.raises(ReleaseError):
        check({"root": Mark(3)}, {"root": Seen(Mark(2))})
