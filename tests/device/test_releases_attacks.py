"""The attacks of TUF's list (its specification, section 1.5.2), one test each: what comes of it.

Slow retrieval, which documents cannot stop, is in test_transport.py.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from simulators.publisher import MODEL, START, URL, Mirror, Publisher
from tuf.api.metadata import MetaFile, TargetFile

from edge_cl.device.releases.client import Answer, enrol, open_releases
from edge_cl.errors import EdgeError, ProtocolError, ReleaseError, TransportError
from edge_cl.wire.release import Board, Facts, to_custom

BOARD = Board(("cpu",), "0.1.0")
GOOD, EVIL = b"a good network" * 100, b"an evil network" * 100


@pytest.fixture
def publisher() -> Publisher:
    made = Publisher()
    made.publish("b-1", GOOD, Facts(1))
    return made


@pytest.fixture
def mirror(publisher: Publisher) -> Mirror:
    return Mirror(publisher)


@pytest.fixture
def state(tmp_path: Path, publisher: Publisher) -> Path:
    enrol(tmp_path, publisher.root)
    return tmp_path


def ask(state: Path, mirror: Mirror, board: Board = BOARD, channel: str = "stable") -> Answer:
    with open_releases(state, URL, mirror) as releases:
        return releases.ask(MODEL, channel, board, mirror.publisher.now)


def fetch(state: Path, mirror: Mirror) -> bytes:
    with open_releases(state, URL, mirror) as releases:
        offer = releases.ask(MODEL, "stable", BOARD, mirror.publisher.now).offer
        assert offer is not None
        return releases.fetch(offer).read_bytes()


def refused(state: Path, mirror: Mirror, kind: type[EdgeError], words: str) -> None:
    """What a device does about an attack: one line, and what it trusted before still serves."""
    with pytest.raises(kind, match=words) as caught:
        fetch(state, mirror)
    assert "\n" not in str(caught.value)
    mirror.instead = {}
    mirror.publisher.renew()  # a thief of the online keys may have used up a version
    assert fetch(state, mirror)


def path_of_target(publisher: Publisher, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return next(path for path in publisher.files if digest in path)


# -- arbitrary software ----------------------------------------------------------------------------------


def test_other_bytes_under_the_name_of_a_release(state: Path, mirror: Mirror) -> None:
    evil = EVIL[: len(GOOD)].ljust(len(GOOD), b"!")
    mirror.instead = {path_of_target(mirror.publisher, GOOD): evil}
    refused(state, mirror, ReleaseError, "not what was signed")


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("2.waste-stable.json", ()),
        ("2.waste-stable.json", ("trainer-1",)),  # one of the two that stable needs
        ("2.waste-stable.json", ("release-1",)),
        ("2.waste-stable.json", ("timestamp-1", "snapshot-1")),  # all that the host holds online
        ("1.targets.json", ("timestamp-1", "snapshot-1", "trainer-1")),
        ("2.snapshot.json", ("timestamp-1",)),
        ("timestamp.json", ("snapshot-1", "trainer-1", "targets-1")),
        ("timestamp.json", ()),
    ],
)
def test_documents_signed_by_too_few_or_the_wrong_keys(
    state: Path, mirror: Mirror, name: str, keys: tuple[str, ...]
) -> None:
    def edit(signed: Any) -> None:
        signed.unrecognized_fields["evil"] = 1

    # A thief of the online keys makes the documents above agree with his.
    forged = mirror.publisher.forge(name, edit, keys)
    mirror.instead = vouched(mirror.publisher, {name: forged})
    refused(state, mirror, ReleaseError, "not to be believed")


def vouched(publisher: Publisher, forged: dict[str, bytes]) -> dict[str, bytes | None]:
    """Return forged documents with a snapshot and a timestamp above them, by the stolen online keys."""
    files = {f"metadata/{name}": data for name, data in forged.items()}
    listed = {name: data for name, data in forged.items() if name.partition(".")[0].isdigit()}

    def agree(snapshot: Any) -> None:
        for name, data in listed.items():
            version, _, file = name.partition(".")
            snapshot.meta[file] = _metafile(int(version), data)

    top = publisher.repository
    assert top is not None
    name = f"{top.snapshot.signed.version}.snapshot.json"
    if name not in forged and "timestamp.json" not in forged:
        files[f"metadata/{name}"] = publisher.forge(name, agree, ["snapshot-1"])
    if "timestamp.json" not in forged:
        snapshot = files[f"metadata/{name}"]
        version = top.snapshot.signed.version

        def point(timestamp: Any) -> None:
            timestamp.snapshot_meta = _metafile(version, snapshot)

        files["metadata/timestamp.json"] = publisher.forge("timestamp.json", point, ["timestamp-1"])
    return dict(files)


def _metafile(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def test_a_channel_that_lists_what_belongs_to_another(state: Path, mirror: Mirror) -> None:
    # The trainer's key alone rules canary: it must not reach into stable.
    publisher = mirror.publisher
    publisher.publish("b-2", b"second", Facts(2), "canary")

    def smuggle(canary: Any) -> None:
        target = TargetFile.from_data("waste/stable/b-9", EVIL, ["sha256"])
        target.unrecognized_fields["custom"] = to_custom(Facts(9))
        canary.targets[target.path] = target

    forged = publisher.forge("2.waste-canary.json", smuggle, ["trainer-1"])
    mirror.instead = vouched(publisher, {"2.waste-canary.json": forged})
    answer = ask(state, mirror, channel="canary")
    assert answer.offer is not None
    assert answer.offer.facts.bundle == 2
    assert ("waste/stable/b-9", "this channel may not list it") in answer.left
    assert fetch(state, mirror) == GOOD


# -- rollback, freeze, mix-and-match, fast-forward -------------------------------------------------------


def test_rollback_to_an_older_valid_state(state: Path, mirror: Mirror) -> None:
    old = dict(mirror.publisher.files)
    mirror.publisher.publish("b-2", b"second", Facts(2))
    assert fetch(state, mirror) == b"second"
    mirror.instead = dict(old)
    refused(state, mirror, ReleaseError, "not to be believed|was seen here")


def test_rollback_of_a_channel_by_a_thief_of_the_online_keys(state: Path, mirror: Mirror) -> None:
    publisher = mirror.publisher
    publisher.publish("b-2", b"second", Facts(2))
    assert fetch(state, mirror) == b"second"

    def back(snapshot: Any) -> None:
        snapshot.version += 1
        snapshot.meta["waste-stable.json"] = _metafile(2, publisher.files["metadata/2.waste-stable.json"])

    top = publisher.repository
    assert top is not None
    version = top.snapshot.signed.version
    snapshot = publisher.forge(f"{version}.snapshot.json", back, ["snapshot-1"])

    def point(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta = _metafile(version + 1, snapshot)

    mirror.instead = {
        f"metadata/{version + 1}.snapshot.json": snapshot,
        "metadata/timestamp.json": publisher.forge("timestamp.json", point, ["timestamp-1"]),
    }
    with pytest.raises(ReleaseError, match="not to be believed"):
        ask(state, mirror)


def test_a_withdrawn_release_does_not_bring_the_one_before_it_back(state: Path, mirror: Mirror) -> None:
    mirror.publisher.publish("b-2", b"second", Facts(2))
    assert fetch(state, mirror) == b"second"

    def withdraw(repository: Any) -> None:
        channel = repository.channels["waste-stable"].signed
        del channel.targets["waste/stable/b-2"]
        channel.version += 1

    mirror.publisher.seize(withdraw, mirror.publisher.signers)
    answer = ask(state, mirror)
    assert (answer.offer, answer.bundle) == (None, 2)
    assert "older than 2" in dict(answer.left)["waste/stable/b-1"]


def test_freeze_ends_with_the_timestamp(state: Path, mirror: Mirror) -> None:
    publisher = mirror.publisher
    mirror.freeze()
    publisher.publish("b-2", b"second", Facts(2))
    assert fetch(state, mirror) == GOOD  # for a day nobody can tell
    publisher.renew(days=1.01)
    refused(
        state, mirror, ReleaseError, r"timestamp.json is expired, it is 2026-11-26 here.*What runs goes on"
    )


def test_mix_and_match_of_documents_from_two_states(state: Path, mirror: Mirror) -> None:
    publisher, old = mirror.publisher, dict(mirror.publisher.files)
    publisher.publish("b-2", b"second", Facts(2))
    mirror.instead = {"metadata/3.waste-stable.json": old["metadata/2.waste-stable.json"]}
    refused(state, mirror, ReleaseError, "not to be believed")


def test_fast_forward_is_recovered_from_by_rotating_the_stolen_keys(state: Path, mirror: Mirror) -> None:
    publisher = mirror.publisher
    fetch(state, mirror)
    top = publisher.repository
    assert top is not None
    huge = 10**9

    def leap(document: Any) -> None:
        document.version = huge

    snapshot = publisher.forge(f"{top.snapshot.signed.version}.snapshot.json", leap, ["snapshot-1"])

    def point(timestamp: Any) -> None:
        timestamp.version, timestamp.snapshot_meta = huge, _metafile(huge, snapshot)

    mirror.instead = {
        f"metadata/{huge}.snapshot.json": snapshot,
        "metadata/timestamp.json": publisher.forge("timestamp.json", point, ["timestamp-1"]),
    }
    assert fetch(state, mirror) == GOOD  # nothing evil in it but the versions
    mirror.instead = {}
    publisher.publish("b-2", b"second", Facts(2))
    with pytest.raises(ReleaseError):  # the honest versions are lower now
        ask(state, mirror)
    publisher.rotate("timestamp-1", "timestamp-2")
    publisher.rotate("snapshot-1", "snapshot-2")
    assert fetch(state, mirror) == b"second"


def test_fast_forward_of_a_channel_and_its_bundles_is_recovered_from_too(state: Path, mirror: Mirror) -> None:
    publisher = mirror.publisher
    before = publisher.repository

    def leap(repository: Any) -> None:
        channel = repository.channels["waste-stable"].signed
        channel.version = 10**9
        channel.targets["waste/stable/b-1"].unrecognized_fields["custom"] = to_custom(Facts(10**9))

    publisher.seize(leap, ("trainer-1", "release-1", "snapshot-1", "timestamp-1"))
    assert fetch(state, mirror) == GOOD
    taken = publisher.repository
    assert before is not None
    assert taken is not None
    # The publisher goes on from his last own channel, with new keys for all that were stolen.
    publisher.repository = taken._replace(channels=before.channels)
    for old in ("trainer-1", "release-1", "snapshot-1", "timestamp-1"):
        publisher.rotate(old, old.replace("1", "2"))
    publisher.publish("b-2", b"second", Facts(2))
    assert fetch(state, mirror) == b"second"


# -- endless data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json"])
def test_endless_documents_are_cut(state: Path, mirror: Mirror, name: str) -> None:
    mirror.instead = {f"metadata/{name}": b" " * (1 << 20)}
    refused(state, mirror, ProtocolError, "more than it may")


def test_an_endless_release_is_cut_and_nothing_of_it_stays(state: Path, mirror: Mirror) -> None:
    mirror.instead = {path_of_target(mirror.publisher, GOOD): GOOD + bytes(1 << 20)}
    with pytest.raises(ProtocolError, match=f"more than the {len(GOOD)} bytes"):
        fetch(state, mirror)
    assert list((state / "tuf" / "downloads").iterdir()) == []


def test_nesting_without_end_is_no_document(state: Path, mirror: Mirror) -> None:
    mirror.instead = {"metadata/timestamp.json": b"[" * 16_000}
    refused(state, mirror, ReleaseError, "not to be believed")


# -- the wrong software ----------------------------------------------------------------------------------


def test_a_release_for_other_hardware_is_left_with_its_reason(state: Path, mirror: Mirror) -> None:
    mirror.publisher.publish("b-2-orin", EVIL, Facts(2, ("orin",)))
    answer = ask(state, mirror)
    assert answer.offer is not None
    assert answer.offer.facts.bundle == 1
    assert dict(answer.left) == {"waste/stable/b-2-orin": "is for orin, not for cpu"}
    found = ask(state, mirror, Board(("orin", "cpu"), "0.1.0")).offer
    assert found is not None
    assert found.facts.bundle == 2


def test_a_release_for_another_runtime_is_left_with_its_reason(state: Path, mirror: Mirror) -> None:
    mirror.publisher.publish("b-2", EVIL, Facts(2, runtime_from="7"))
    assert "needs edge-cl 7 or newer" in dict(ask(state, mirror).left)["waste/stable/b-2"]


def test_a_release_whose_facts_cannot_be_read_does_not_hide_the_others(state: Path, mirror: Mirror) -> None:
    def garble(repository: Any) -> None:
        channel = repository.channels["waste-stable"].signed
        target = TargetFile.from_data("waste/stable/b-2", EVIL, ["sha256"])
        target.unrecognized_fields["custom"] = {"bundle": "two"}
        channel.targets[target.path] = target
        channel.version += 1

    mirror.publisher.seize(garble, mirror.publisher.signers)
    answer = ask(state, mirror)
    assert answer.offer is not None
    assert "'two'" in dict(answer.left)["waste/stable/b-2"]


# -- stolen keys -----------------------------------------------------------------------------------------

THEFTS: dict[str, tuple[str, Callable[[Publisher], None]]] = {
    "timestamp-1": ("timestamp.json", lambda publisher: publisher.rotate("timestamp-1", "timestamp-2")),
    "trainer-1": ("2.waste-canary.json", lambda publisher: publisher.rotate("trainer-1", "trainer-2")),
    "targets-1": ("1.targets.json", lambda publisher: publisher.rotate("targets-1", "targets-2")),
}


@pytest.mark.parametrize("key", THEFTS)
def test_after_its_rotation_a_stolen_key_signs_nothing(state: Path, mirror: Mirror, key: str) -> None:
    publisher = mirror.publisher
    publisher.publish("c-1", GOOD, Facts(1), "canary")
    ask(state, mirror, channel="canary")
    THEFTS[key][1](publisher)
    publisher.renew("targets", "waste-canary")
    top = publisher.repository
    assert top is not None
    name = {
        "timestamp-1": "timestamp.json",
        "trainer-1": f"{top.channels['waste-canary'].signed.version}.waste-canary.json",
        "targets-1": f"{top.targets.signed.version}.targets.json",
    }[key]

    def edit(signed: Any) -> None:
        signed.unrecognized_fields["evil"] = 1
        signed.expires = START + timedelta(days=50)

    forged = publisher.forge(name, edit, [key])
    publisher.signers["timestamp-1"] = publisher.signers.get("timestamp-2", publisher.signers["timestamp-1"])
    mirror.instead = vouched(publisher, {name: forged})
    with pytest.raises(ReleaseError, match="not to be believed"):
        ask(state, mirror, channel="canary")
    mirror.instead = {}
    publisher.renew()
    assert ask(state, mirror, channel="canary").offer is not None


def test_one_stolen_root_key_makes_no_root(state: Path, mirror: Mirror) -> None:
    def next_root(root: Any) -> None:
        root.version = 2

    mirror.instead = {"metadata/2.root.json": mirror.publisher.forge("1.root.json", next_root, ["root-1"])}
    refused(state, mirror, ReleaseError, "not to be believed")


def test_a_root_of_two_new_keys_that_the_old_ones_did_not_sign_is_refused(
    state: Path, mirror: Mirror
) -> None:
    stranger = Publisher()
    for _ in range(2):
        stranger.rotate("root-1", "root-1")
    mirror.instead = {"metadata/2.root.json": stranger.files["metadata/2.root.json"]}
    refused(state, mirror, ReleaseError, "not to be believed")


def test_a_whole_other_repository_is_refused(state: Path, mirror: Mirror) -> None:
    stranger = Publisher()
    stranger.publish("b-9", EVIL, Facts(9))
    mirror.instead = dict(stranger.files)
    refused(state, mirror, ReleaseError, "not to be believed")


# -- a mirror that is broken rather than evil ------------------------------------------------------------


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.waste-stable.json"])
@pytest.mark.parametrize("known", [False, True], ids=["first sync", "later"])
def test_a_document_that_is_missing_is_a_matter_of_the_network(
    state: Path, mirror: Mirror, name: str, known: bool
) -> None:
    if known:
        fetch(state, mirror)
    mirror.publisher.publish("b-2", b"second", Facts(2))
    mirror.instead = {f"metadata/{name}": None}
    refused(state, mirror, TransportError, "next sync")
