"""Killed, or refused by the disk, at any call that writes: one whole bundle is in use, and all goes on."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from simulators import installer
from simulators.installer import BOARD, NEW
from simulators.killer import KILL, PYTHON, Outcome, run_failing_at, why_not
from simulators.releases import Host, later, of_folder
from simulators.workshop import PHOTOS_PER_CLASS, call, ok
from test_new_backbone import better, keep_pictures

from edge_cl.device.install import check_bundle, load_checkpoint, read_current
from edge_cl.device.installation.installation import Installation
from edge_cl.device.installation.states import PROBATION
from edge_cl.device.opening import open_agent
from edge_cl.device.staged import model_path
from edge_cl.memory.opening import open_store

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "traced")
__all__ = ["better"]
INSTALLER = str(Path(installer.__file__))
EVERY = 1  # calls between the ones tried in the slow tests
TAUGHT = 3 * PHOTOS_PER_CLASS
REFUSALS = ("error=ENOSPC", "error=EIO")


class World(NamedTuple):
    """A device before a release comes, the release, and pictures to teach meanwhile."""

    template: Path
    state: Path
    published: Path
    manifest: str
    photos: Path

    @property
    def release(self) -> Path:
        """Where the device has fetched it to."""
        return self.state.with_name("fetched")

    def command(self, end: str) -> list[str]:
        """Return what installs it."""
        return [PYTHON, INSTALLER, *map(str, (self.state, self.release, self.manifest, self.photos)), end]

    def prepare(self) -> None:
        """Make the device anew."""
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.copytree(self.template, self.state)
        shutil.copyfile(self.published, self.release)  # a release that is kept removes its file


def made(device: Path, backbone: Path, photos: Path, tmp_path: Path) -> World:
    release = Host(backbone, of_folder(photos, "3", "4")).release(tmp_path / "tuf")
    return World(device, tmp_path / "killed", release.file, release.manifest, photos)


@pytest.fixture
def same(device, all_photos, tmp_path) -> World:
    """The release has the backbone that runs."""
    return made(device, model_path(device), all_photos, tmp_path)


@pytest.fixture
def new(device, better, photos, all_photos, tmp_path) -> World:
    """The release has another one; pictures were kept."""
    keep_pictures(device)
    ok("learn", photos, "--state", device)
    return made(device, better, all_photos, tmp_path)


@pytest.mark.parametrize(("kind", "end", "stride"), [("same", "keep", 151), ("new", "undo", 401)])
def test_killed_at_some_calls_it_goes_on(kind, end, stride, request):
    assert kill_everywhere(request.getfixturevalue(kind), end, KILL, stride) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ["keep", "undo"])
@pytest.mark.parametrize("kind", ["same", "new"])
def test_killed_at_every_call_that_writes_it_goes_on(kind, end, request):
    assert kill_everywhere(request.getfixturevalue(kind), end, KILL, EVERY) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("fault", REFUSALS)
@pytest.mark.parametrize("kind", ["same", "new"])
def test_refused_by_the_disk_from_some_call_on_it_goes_on_once_there_is_room(kind, fault, request):
    assert kill_everywhere(request.getfixturevalue(kind), "keep", fault, 11, onwards=True) >= 5


def kill_everywhere(world: World, end: str, fault: str, stride: int, onwards: bool = False) -> int:
    hits = 0
    for outcome in run_failing_at(
        world.command(end), world.prepare, fault=fault, stride=stride, onwards=onwards,
        environment={"OPENBLAS_NUM_THREADS": "1"},
    ):  # fmt: skip
        assert outcome.hit or outcome.status == 0, outcome
        check(world, end, outcome)
        hits += outcome.hit
    return hits


def check(world: World, end: str, outcome: Outcome) -> None:
    """Look at the device as it was left, then let it go on."""
    promises = [line.split() for line in outcome.stdout.splitlines()]
    check_one_whole_life(world.state, promises, outcome)
    check_it_goes_on(world, end, outcome)


def check_one_whole_life(state: Path, promises: list[list[str]], outcome: Outcome) -> None:
    current = read_current(state)
    for digest in current.bundles:
        check_bundle(state, digest)
    loaded = load_checkpoint(state)
    assert loaded is None or loaded.problem == "", outcome
    said = call("status", "--json", "--state", state)
    assert said.status == 0, (outcome, said)
    assert said.err == "", (outcome, said)
    least = max((int(words[1]) for words in promises if words[0] == "taught"), default=TAUGHT)
    assert least <= said.json["samples"] <= TAUGHT + NEW, outcome
    if ["kept"] in promises:
        assert said.json["release"]["bundle"] == 1, outcome
    if ["undone"] in promises:
        assert said.json["release"]["bundle"] == 0, outcome


def check_it_goes_on(world: World, end: str, outcome: Outcome) -> None:
    """The same steps again, or what is left of them, lead to the end; a failed try is one of three."""
    installation = Installation(world.state, BOARD)
    record = installation.standing()
    if record.state == "idle" or (end == "keep" and record.state == "rollback"):  # its engine was killed
        installation.consider(world.release, world.manifest, None, later(0))
    record = installation.advance(later(1))
    assert record.state in (("rollback", PROBATION) if end == "undo" else ("commit", PROBATION)), outcome
    with open_agent(world.state, with_backbone=True) as agent:
        assert agent.notes == [], outcome
        assert sum(shown.is_live for shown in agent.samples()) >= TAUGHT, outcome
        own = agent.learner.own_statistics().counts.sum()
        assert own == 12 * len(agent.samples()), outcome
    if record.state == PROBATION:
        ok("predict", *sorted((world.photos / "0").iterdir())[:3], "--state", world.state)
        record = installation.advance(later(60))
        assert record.state == "commit", outcome
    with open_store(world.state, None, read_only=True) as store:
        assert store.other_space is None, outcome
    assert read_current(world.state).fallback is None
    assert [path.name for path in world.state.rglob(".part-*")] == [], outcome
    assert len(list((world.state / "bundles").iterdir())) == 1, outcome
