"""A repository in a folder: who can sign what, what is refused, and no interruption leaves half of one."""

import contextlib
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from simulators.fleet import sync

from edge_cl.errors import ConfigError, InputError, ReleaseError, StoreError
from edge_cl.wire.release import CHANNELS, Facts
from host_trainer.release import folder as folders
from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import (
    add_model,
    found_repository,
    promote,
    publish,
    renew,
    rotate_key,
)
from host_trainer.release.repository import name_of, roles_of

NOW = datetime.now(timezone.utc)
PASSPHRASE = b"correct horse"


def ring(place: RepositoryFolder, *more: Path, passphrase: bytes = PASSPHRASE) -> Keyring:
    return Keyring(place.key_folders(more), lambda words: passphrase)


@pytest.fixture
def place(tmp_path: Path) -> RepositoryFolder:
    made = RepositoryFolder(tmp_path / "fleet")
    found_repository(made, ring(made), ["waste"], PASSPHRASE, NOW)
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "b-1.bundle"
    path.write_bytes(b"a network" * 100)
    return path


def without(place: RepositoryFolder, *names: str) -> Keyring:
    """Return a ring from which some keys were taken away."""
    for name in names:
        (found,) = place.keys.rglob(f"{name}.pem")
        found.unlink()
    return ring(place)


# -- what is made ----------------------------------------------------------------------------------------


def test_a_new_repository_has_its_keys_thresholds_and_delegations(place: RepositoryFolder) -> None:
    repository = place.read()
    assert repository.root.signed.consistent_snapshot
    held = {role: sorted(map(name_of, repository.keys_of(role))) for role in roles_of(repository)}
    assert held == {
        "root": ["root-1", "root-2", "root-3"],
        "targets": ["targets-1"],
        "snapshot": ["snapshot-1"],
        "timestamp": ["timestamp-1"],
        "waste-canary": ["trainer-1"],
        "waste-beta": ["trainer-1"],
        "waste-stable": ["release-1", "trainer-1"],
    }
    assert repository.root.signed.roles["root"].threshold == 2
    delegations = repository.targets.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    for channel in CHANNELS:
        role = delegations.roles[f"waste-{channel}"]
        assert role.terminating
        assert role.paths == [f"waste/{channel}/*"]
        assert role.threshold == (2 if channel == "stable" else 1)


def test_keys_are_for_their_owner_only_and_the_offline_ones_under_a_passphrase(
    place: RepositoryFolder,
) -> None:
    for path in place.keys.rglob("*.pem"):
        assert path.stat().st_mode & 0o777 == 0o600, path
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert (b"ENCRYPTED" in path.read_bytes()) == (path.parent.name == "offline")
    assert {path.name for path in (place.keys / "offline").iterdir()} == {
        *(f"root-{n}.pem" for n in (1, 2, 3)),
        "targets-1.pem",
        "release-1.pem",
    }


def test_a_key_that_others_can_read_is_refused(place: RepositoryFolder, bundle: Path) -> None:
    (place.keys / "online" / "trainer-1.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        publish(place, ring(place), bundle, "waste", "canary", Facts(0), NOW)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_file_that_is_none_is_named(place: RepositoryFolder, bundle: Path, content: bytes) -> None:
    (place.keys / "online" / "trainer-1.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"trainer-1\.pem"):
        publish(place, ring(place), bundle, "waste", "canary", Facts(0), NOW)


def test_a_key_in_the_place_of_another_is_found_out(place: RepositoryFolder, bundle: Path) -> None:
    keys = place.keys / "online"
    (keys / "trainer-1.pem").write_bytes((keys / "snapshot-1.pem").read_bytes())
    with pytest.raises(ConfigError, match="not the key that the repository knows"):
        publish(place, ring(place), bundle, "waste", "canary", Facts(0), NOW)


@pytest.mark.parametrize("wrong", [b"", b"wrong"])
def test_a_wrong_passphrase_is_told(place: RepositoryFolder, wrong: bytes) -> None:
    with pytest.raises(ConfigError, match="passphrase"):
        rotate_key(place, ring(place, passphrase=wrong), "root-1", NOW)


def test_nothing_is_made_over_what_is_there(place: RepositoryFolder) -> None:
    with pytest.raises(ConfigError, match="already"):
        found_repository(place, ring(place), ["waste"], b"", NOW)


def test_a_model_is_added_later(place: RepositoryFolder, bundle: Path, tmp_path: Path) -> None:
    add_model(place, ring(place), "fruit", NOW)
    publish(place, ring(place), bundle, "fruit", "stable", Facts(0), NOW)
    assert sync(tmp_path / "device", place.folder, "fruit")[1] == bundle.read_bytes()
    with pytest.raises(ConfigError, match="already"):
        add_model(place, ring(place), "fruit", NOW)


# -- publishing ------------------------------------------------------------------------------------------


def test_a_release_goes_from_canary_over_beta_to_stable(
    place: RepositoryFolder, bundle: Path, tmp_path: Path
) -> None:
    listed = publish(place, ring(place), bundle, "waste", "canary", Facts(0, ("cpu",), "0.1"), NOW)
    assert listed.bundle == 1
    for to in ("beta", "stable"):
        assert sync(tmp_path / "device", place.folder, channel=to)[1] is None
        promote(place, ring(place), bundle.name, "waste", to, NOW)
        assert sync(tmp_path / "device", place.folder, channel=to)[1] == bundle.read_bytes()
    answer, _ = sync(tmp_path / "device", place.folder)
    assert answer.offer is not None
    assert answer.offer.facts == Facts(1, ("cpu",), "0.1")


def test_the_next_bundle_has_the_next_number_over_all_channels(place: RepositoryFolder, bundle: Path) -> None:
    assert publish(place, ring(place), bundle, "waste", "canary", Facts(7), NOW).bundle == 7
    assert publish(place, ring(place), bundle, "waste", "beta", Facts(0), NOW).bundle == 8


def test_stable_takes_two_keys(place: RepositoryFolder, bundle: Path) -> None:
    before = sorted(place.folder.rglob("*"))
    with pytest.raises(ConfigError, match="release-1 with --keys"):
        publish(place, without(place, "release-1"), bundle, "waste", "stable", Facts(0), NOW)
    assert set(place.folder.rglob("*")) <= set(before)


@pytest.mark.parametrize(
    ("model", "channel", "name", "facts"),
    [
        ("fruit", "canary", "", Facts(0)),
        ("../x", "canary", "", Facts(0)),
        ("waste", "nightly", "", Facts(0)),
        ("waste", "canary", "../../x", Facts(0)),
        ("waste", "canary", "", Facts(-1)),
        ("waste", "canary", "", Facts(0, ())),
        ("waste", "canary", "", Facts(0, runtime_from="soon")),
        ("waste", "canary", "b-5", Facts(9)),  # a name that is taken
        ("waste", "canary", "", Facts(4)),  # older than what is there
    ],
)
def test_what_makes_no_sense_is_refused(
    place: RepositoryFolder, bundle: Path, model: str, channel: str, name: str, facts: Facts
) -> None:
    publish(place, ring(place), bundle, "waste", "canary", Facts(5), NOW, "b-5")
    with pytest.raises(InputError) as caught:
        publish(place, ring(place), bundle, model, channel, facts, NOW, name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_and_a_folder_without_repository_are_named(
    place: RepositoryFolder, bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing"):
        publish(place, ring(place), tmp_path / "nothing", "waste", "canary", Facts(0), NOW)
    empty = RepositoryFolder(tmp_path / "empty")
    with pytest.raises(ConfigError, match="holds no repository"):
        publish(empty, ring(place), bundle, "waste", "canary", Facts(0), NOW)
    assert not empty.folder.exists()


def test_nothing_skips_a_channel(place: RepositoryFolder, bundle: Path) -> None:
    publish(place, ring(place), bundle, "waste", "canary", Facts(0), NOW)
    with pytest.raises(ConfigError, match="waste-beta lists no"):
        promote(place, ring(place), bundle.name, "waste", "stable", NOW)
    with pytest.raises(ConfigError, match="nothing comes before"):
        promote(place, ring(place), bundle.name, "waste", "canary", NOW)


def test_what_someone_changed_on_the_host_is_not_signed_over(place: RepositoryFolder, bundle: Path) -> None:
    listed = publish(place, ring(place), bundle, "waste", "beta", Facts(0), NOW)
    listed.file.write_bytes(b"evil")
    with pytest.raises(ConfigError, match="not what was signed"):
        promote(place, ring(place), bundle.name, "waste", "stable", NOW)
    document = place.metadata / "2.waste-beta.json"
    document.write_bytes(document.read_bytes().replace(listed.sha256.encode(), b"0" * 64))
    with pytest.raises(ReleaseError, match="not to be trusted"):
        promote(place, ring(place), bundle.name, "waste", "stable", NOW)
    document.write_bytes(b"")
    with pytest.raises(ReleaseError, match="does not read"):
        renew(place, ring(place), NOW)


# -- rotating and renewing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["root-2", "targets-1", "snapshot-1", "timestamp-1", "trainer-1", "release-1"]
)
@pytest.mark.parametrize("lost", [False, True], ids=["at hand", "lost"])
def test_any_key_can_be_replaced_and_devices_follow(
    place: RepositoryFolder, bundle: Path, tmp_path: Path, key: str, lost: bool
) -> None:
    publish(place, ring(place), bundle, "waste", "stable", Facts(0), NOW)
    sync(tmp_path / "device", place.folder)
    done = rotate_key(place, without(place, key) if lost else ring(place), key, NOW)
    assert key not in {
        name_of(each) for role in roles_of(place.read()) for each in place.read().keys_of(role)
    }
    assert done.file.stat().st_mode & 0o777 == 0o600
    assert (b"ENCRYPTED" in done.file.read_bytes()) == (done.file.parent.name == "offline")
    assert not list(place.keys.rglob(f"{key}.pem"))
    publish(place, ring(place), bundle, "waste", "stable", Facts(0), NOW, "b-2")
    answer, data = sync(tmp_path / "device", place.folder)
    assert answer.offer is not None
    assert answer.offer.facts.bundle == 2
    assert data == bundle.read_bytes()


def test_numbers_of_keys_are_never_used_twice(place: RepositoryFolder) -> None:
    names = [rotate_key(place, ring(place), "trainer-1", NOW).new]
    for _ in range(3):
        names.append(rotate_key(place, ring(place), names[-1], NOW).new)
    assert names == ["trainer-2", "trainer-3", "trainer-4", "trainer-5"]


def test_a_key_that_nobody_has_is_named_with_those_there_are(place: RepositoryFolder) -> None:
    with pytest.raises(ConfigError, match="choose release-1, root-1"):
        rotate_key(place, ring(place), "trainer-9", NOW)


@pytest.mark.parametrize(
    ("gone", "key"),
    [(("root-1", "root-2"), "root-3"), (("root-1", "root-2"), "timestamp-1"), (("targets-1",), "trainer-1")],
)
def test_without_the_keys_above_it_no_key_is_replaced(
    place: RepositoryFolder, gone: tuple[str, ...], key: str
) -> None:
    with pytest.raises(ConfigError, match=gone[0]):
        rotate_key(place, without(place, *gone), key, NOW)
    assert not [path for path in place.keys.rglob("*.pem") if path.stem == f"{key[:-1]}{int(key[-1]) + 1}"]
    assert list(place.keys.rglob(f"{key}.pem"))
    place.read()


def test_keys_may_lie_elsewhere(place: RepositoryFolder, tmp_path: Path) -> None:
    stick = (place.keys / "offline").rename(tmp_path / "stick")
    with pytest.raises(ConfigError, match="--keys"):
        rotate_key(place, ring(place), "targets-1", NOW)
    assert rotate_key(place, ring(place, stick), "targets-1", NOW).file.parent == stick


def test_renewing_signs_what_it_can_and_names_what_waits(place: RepositoryFolder, tmp_path: Path) -> None:
    assert [role for role, _ in renew(place, ring(place), NOW).renewed] == ["snapshot", "timestamp"]
    later = NOW + timedelta(days=31)
    stick = (place.keys / "offline").rename(tmp_path / "stick")
    done = renew(place, ring(place), later)
    assert [role for role, _ in done.renewed] == ["waste-beta", "waste-canary", "snapshot", "timestamp"]
    assert [role for role, _ in done.waiting] == ["waste-stable"]
    assert dict(done.renewed)["timestamp"] == (later + timedelta(days=1)).replace(microsecond=0)
    done = renew(place, ring(place, stick), NOW + timedelta(days=200))
    assert {"root", "targets", "waste-stable"} <= {role for role, _ in done.renewed}
    assert done.waiting == ()


# -- interruption ----------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "publish": lambda place, bundle: publish(
        place, ring(place), bundle, "waste", "stable", Facts(0), NOW, "b-2"
    ),
    "promote": lambda place, bundle: promote(place, ring(place), "b-1.bundle", "waste", "beta", NOW),
    "add model": lambda place, bundle: add_model(place, ring(place), "fruit", NOW),
    "renew": lambda place, bundle: renew(place, ring(place), NOW),
    **{
        key: lambda place, bundle, key=key: rotate_key(place, ring(place), key, NOW)
        for key in ("root-1", "targets-1", "snapshot-1", "timestamp-1", "trainer-1", "release-1")
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_interrupted_anywhere_the_repository_is_valid_and_the_next_command_ends_it(
    place: RepositoryFolder, bundle: Path, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for channel in ("canary", "stable"):
        publish(place, ring(place), bundle, "waste", channel, Facts(1), NOW)
    sync(tmp_path / "device", place.folder)
    for nth in count(1):
        world = tmp_path / str(nth)
        there = RepositoryFolder(shutil.copytree(place.folder, world / "fleet"))
        device = shutil.copytree(tmp_path / "device", world / "device")
        was_stopped = stopped_at(nth, lambda there=there: CHANGES[change](there, bundle), monkeypatch)
        assert sync(device, there.folder)[1] == bundle.read_bytes()
        assert sync(world / "new device", there.folder)[1] == bundle.read_bytes()
        renew(there, ring(there), NOW)  # the next command, whatever it is
        there.read()
        assert not (there.folder / "pending").exists()
        assert sync(device, there.folder)[1] == bundle.read_bytes()
        if not was_stopped:
            break
    assert nth > 2


def stopped_at(nth: int, change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Carry out a change and pull the plug at its nth write; False when it has fewer."""
    write, done = folders.write_file, 0

    def stopping(path: Path, data: bytes) -> None:
        nonlocal done
        done += 1
        if done >= nth:
            raise StoreError("the plug")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_file", stopping)
        with contextlib.suppress(StoreError):
            change()
    return done >= nth
