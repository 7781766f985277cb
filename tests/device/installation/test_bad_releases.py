"""Releases as a publisher who errs would make them: each is refused or undone, with a reason for a person."""

import numpy as np
import pytest
from simulators.releases import (
    BOARD,
    GATES,
    START,
    Host,
    install,
    of_folder,
    own_of,
    repacked,
)
from test_installation import TOLD, assert_same, names, state_of

from edge_cl.config import InstallationSettings, read_settings, write_settings
from edge_cl.device.install import BUNDLES, read_current
from edge_cl.device.installation import records
from edge_cl.device.installation.installation import Installation
from edge_cl.device.installation.states import Record
from edge_cl.device.staged import model_path
from edge_cl.errors import ReleaseError
from edge_cl.learning import head
from edge_cl.wire import bundle as bundles
from edge_cl.wire import parts
from edge_cl.wire.bundle import HEAD, Input
from edge_cl.wire.release import Board


@pytest.fixture
def good(device, host, tmp_path):
    return host.release(tmp_path / "tuf")


def refused_for(device, made, board=BOARD, **more) -> str:
    """Let the device try a release, which it must not keep; return the reason. Nothing else changes."""
    before, learner = read_current(device), state_of(device)
    told = {TOLD: own_of(device)}
    installation = Installation(device, board, told.get)
    try:
        installation.consider(made.file, made.manifest, TOLD, START)
    except ReleaseError as error:
        assert str(error)
    record = installation.advance(START, **more)
    assert record.state == "rollback", record
    assert record.failures == 1
    current = read_current(device)
    assert (current.bundle, current.fallback) == (before.bundle, None)
    assert names(device / BUNDLES) == {before.bundle}
    assert_same(state_of(device), learner)
    assert "\n" not in record.reason
    return record.reason


def with_head(made, place, change):
    """The release with other tensors in its head."""
    found = bundles.unpack(made.file.read_bytes())
    tensors = bundles.head(found)
    change(tensors)
    data = parts.tensors.pack(tensors)
    return repacked(made, place, {HEAD: data})


@pytest.mark.parametrize("step", [1, 3])
def test_labels_in_another_order(device, host, good, tmp_path, step):
    """Every class of the head has the name of another one."""
    labels = bundles.unpack(good.file.read_bytes()).manifest.labels
    turned = repacked(good, tmp_path, {}, labels=labels[step:] + labels[:step])
    reason = refused_for(device, turned)
    assert any(words in reason for words in ("samples of this device", "lacks it", "make no sense"))


def test_a_head_that_is_not_a_number(device, good, tmp_path):
    def spoil(tensors):
        tensors["calibration.numbers"][0] = np.inf

    with pytest.raises(ValueError, match="finite"):
        with_head(good, tmp_path, spoil)  # our own writer does not even write it
    data = bundles.unpack(good.file.read_bytes()).files[HEAD]
    nan = np.array([np.nan]).tobytes()
    at = data.index(bundles.head(bundles.unpack(good.file.read_bytes()))["calibration.numbers"].tobytes())
    reason = refused_for(device, repacked(good, tmp_path, {HEAD: data[:at] + nan + data[at + 8 :]}))
    assert "finite" in reason


def test_pictures_prepared_otherwise_than_its_golden_ones(device, host, good, tmp_path):
    manifest = bundles.unpack(good.file.read_bytes()).manifest
    seen = manifest.input
    wrong = repacked(good, tmp_path, {}, input=Input(seen.height, seen.width, 0.0, 1.0, "squash", True))
    assert "golden answers differ" in refused_for(device, wrong)


def test_a_head_that_answers_worse(device, all_photos, tmp_path):
    """It has taken what this device told, and mixed it up with a thousand wrong pictures of each."""
    own = own_of(device)
    heavy = own._replace(labels=("1", "2", "0"), statistics=type(own.statistics)(
        *(50 * values if isinstance(values, int) else values * 50 for values in own.statistics)))  # fmt: skip
    from edge_cl.learning import named

    host = Host(model_path(device), of_folder(all_photos, "3"), named.plus(own, heavy))
    reason = refused_for(device, host.release(tmp_path))
    assert "of 18 samples of this device that it has not seen it answers" in reason


def test_too_slow_for_the_board(device, host, tmp_path):
    reason = refused_for(device, host.release(tmp_path, gates=GATES.__class__(0, 20, 4, 990, 1, 0)))
    assert "ms here, more than the 0.0 ms allowed" in reason


def test_too_large_for_the_board_by_the_owner_s_own_limit(device, good):
    settings = read_settings(device)
    policy = InstallationSettings(memory_mb=1.0)
    write_settings(device, settings.__class__(settings.learner, settings.teaching, settings.engine,
                                              settings.sync, policy))  # fmt: skip
    assert "MB here, more than the 1.0 MB allowed" in refused_for(device, good)


def test_a_backbone_that_crashes_when_it_is_loaded(device, good, tmp_path, monkeypatch):
    """The child that loads it dies of a signal, as from a bug of the interpreter."""
    from edge_cl.vision.engines import isolated

    monkeypatch.setattr(isolated, "BOOT", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    reason = refused_for(device, good)
    assert "does not run here" in reason
    assert "SIGSEGV" in reason


def test_a_backbone_that_is_none(device, good, tmp_path):
    garbage = b"\x1c\0\0\0TFL3" + bytes(1000)
    found = bundles.unpack(good.file.read_bytes())
    tensors, words = parts.tensors.unpack(found.files["golden.safetensors"])
    words["sha256"] = bundles.described("backbone.tflite", garbage).sha256
    golden = parts.tensors.pack(tensors, words)
    made = repacked(good, tmp_path, {"backbone.tflite": garbage, "golden.safetensors": golden})
    assert "does not run here" in refused_for(device, made)


def test_a_head_that_lacks_what_it_says_it_took(device, stranger, tmp_path):
    assert "lacks it" in refused_for(device, stranger.release(tmp_path))


def test_live_frames_that_are_answered_otherwise(device, good, monkeypatch, photos):
    from edge_cl.device.installation import shadow
    from edge_cl.vision.frames import read_image

    frames = [np.asarray(read_image(path)) for path in sorted(photos.glob("*/*"))]
    monkeypatch.setattr(shadow, "SURE", 0.0)
    monkeypatch.setattr(shadow, "CHANGED", -1.0)
    assert "live frames" in refused_for(device, good, frames=frames)


def test_for_another_board_or_program(device, good):
    assert "is for any" not in refused_for(device, good, Board(("cpu",), "0.0.1"))
    installation = Installation(device, Board(("cpu",), "0.0.1"))
    assert "needs edge-cl 0.1.0" in installation.standing().reason


def test_another_file_than_the_one_named(device, host, good, tmp_path):
    other = host.release(tmp_path, 2)
    named = other._replace(manifest=good.manifest)
    assert "not the release that the host named" in refused_for(device, named)


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-7], lambda data: b"x" + data[1:]])
def test_bytes_that_are_no_release(device, good, tmp_path, spoil):
    file = tmp_path / "spoiled"
    file.write_bytes(spoil(good.file.read_bytes()))
    installation = Installation(device, BOARD)
    before = read_current(device)
    with pytest.raises(ReleaseError):
        installation.consider(file, good.manifest, None, START)
    assert read_current(device) == before
    with pytest.raises(ReleaseError, match="cannot be read"):
        installation.consider(tmp_path / "missing", good.manifest, None, START)


def test_a_release_without_its_backbone_takes_it_from_what_runs(device, host, tmp_path):
    """A lean release goes on from the whole one in use; another device has to get a whole one."""
    told = {TOLD: own_of(device)}
    first = host.release(tmp_path)
    known = head.to_statistics(bundles.head(bundles.unpack(first.file.read_bytes())))
    second = host.lean_release(tmp_path / "lean", 2, first.file, known)
    assert second.file.stat().st_size < 0.5 * first.file.stat().st_size
    before = state_of(device)
    install(device, first, TOLD, told)
    current = read_current(device)
    records.write(device, Record("commit", 1, old=current.fallback.bundle))
    assert Installation(device, BOARD).advance(START).old == ""
    _, record = install(device, second, TOLD, told)
    assert (record.state, record.reason) == ("probation", "")
    assert state_of(device).keys() > before.keys()
    third = host.lean_release(tmp_path / "lean", 3, first.file, known)
    records.write(device, Record("commit", 2, old=read_current(device).fallback.bundle))
    Installation(device, BOARD).advance(START)
    assert "goes on from bundle 1" in refused_for(device, third)


def test_a_release_that_leaves_out_what_is_not_here(device, host, tmp_path):
    first = host.release(tmp_path)
    known = head.to_statistics(bundles.head(bundles.unpack(first.file.read_bytes())))
    assert "leaves out" in refused_for(device, host.lean_release(tmp_path / "lean", 2, first.file, known))


def test_the_program_that_dies_while_it_tries_a_release_gives_up_in_the_end(device, good, monkeypatch):
    """A death leaves the state begun: after three of them the release has failed."""
    installation = Installation(device, BOARD, {TOLD: own_of(device)}.get)
    installation.consider(good.file, good.manifest, TOLD, START)
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(installation, "_stored", died)
            with pytest.raises(DiedError):
                installation.advance(START)
    record = installation.advance(START)
    assert (record.state, record.reason) == ("rollback", "the program died 3 times at it (staged)")


class DiedError(BaseException):
    """Stands for a process that is no more."""


def died(_record):
    raise DiedError


def test_a_person_who_stops_it_is_no_failure_of_the_release(device, good, monkeypatch):
    installation = Installation(device, BOARD, {TOLD: own_of(device)}.get)
    installation.consider(good.file, good.manifest, TOLD, START)
    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(installation, "_tried", stopped)
            with pytest.raises(KeyboardInterrupt):
                installation.advance(START)
    assert installation.advance(START).state == "probation"


def stopped(_record, _frames):
    raise KeyboardInterrupt


def test_a_release_that_is_damaged_here_is_fetched_again(device, good):
    installation = Installation(device, BOARD, {TOLD: own_of(device)}.get)
    installation.consider(good.file, good.manifest, TOLD, START)
    record = installation.standing()
    while record.state != "swap":
        record = installation._step(record, START)
    (device / BUNDLES / record.staged / HEAD).write_bytes(b"damaged")
    record = installation.advance(START)
    assert (record.state, record.reason) == ("rollback", "its files here are damaged: it is fetched again")
    _, record = install(device, good, TOLD, {TOLD: own_of(device)})
    assert record.state == "probation"


def test_a_release_that_failed_three_times_is_left_alone(device, stranger, tmp_path):
    made = stranger.release(tmp_path / "tuf")
    for times in range(1, 4):
        _, record = install(device, made, TOLD, {TOLD: own_of(device)})
        assert record.failures == times
    assert not made.file.exists()
    with pytest.raises(ReleaseError, match="failed 3 times"):
        install(device, stranger.release(tmp_path / "tuf"), TOLD, {TOLD: own_of(device)})
    assert install(device, stranger.release(tmp_path / "tuf", 2))[1].state == "probation"


def test_what_nobody_remembers_to_have_told_is_not_taken(device, good):
    installation = Installation(device, BOARD)
    installation.consider(good.file, good.manifest, TOLD, START)
    assert "does not know to have told" in installation.advance(START).reason
