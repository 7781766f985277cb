"""The commands that sign, as a person types them, and the page that tells which."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from simulators.fleet import sync
from simulators.foreman import call, ok, refused
from simulators.killer import PYTHON, run_failing_at, why_not

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "releases.md"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOST_TRAINER_PASSPHRASE", "correct horse")
    (tmp_path / "waste-1.bundle").write_bytes(b"a network" * 100)
    return tmp_path


@pytest.fixture
def fleet(here: Path) -> Path:
    ok("init", "fleet", "--model", "waste")
    return here / "fleet"


def commands_of_the_page() -> list[str]:
    fenced = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [line for block in fenced for line in block.splitlines()]


def test_the_page_works_word_for_word_and_a_device_follows(here: Path) -> None:
    for line in commands_of_the_page():
        if line.startswith("host-trainer "):
            said = call(*line.split()[1:])
            assert said.status == 0, (line, said)
        else:
            subprocess.run(line, shell=True, check=True, cwd=here)
        if "--to stable" in line:
            assert sync(here / "device", here / "fleet")[1] == (here / "waste-1.bundle").read_bytes()
            shutil.copytree(here / "fleet", here / "before the drill")
    assert sync(here / "device", here / "fleet")[1] == (here / "waste-1.bundle").read_bytes()
    retired = {path.name.partition(".")[0] for path in here.rglob("*.pem.retired")}
    assert retired == {"timestamp-1", "snapshot-1", "trainer-1", "targets-1", "release-1", "root-3"}


def test_after_the_drill_the_stolen_keys_open_nothing(here: Path) -> None:
    for line in commands_of_the_page():
        if line.startswith("host-trainer "):
            call(*line.split()[1:])
        else:
            subprocess.run(line, shell=True, check=True, cwd=here)
        if "--to stable" in line:
            shutil.copytree(here / "fleet", here / "stolen")
    sync(here / "device", here / "fleet")
    # The thief goes on with what he has: he publishes, and serves that with the new roots he cannot hide.
    (here / "evil.bundle").write_bytes(b"evil")
    ok("publish", "evil.bundle", "--repository", "stolen", "--model", "waste")
    for path in (here / "fleet" / "repository" / "metadata").glob("*.root.json"):
        shutil.copy(path, here / "stolen" / "repository" / "metadata")
    with pytest.raises(Exception, match="not to be believed"):
        sync(here / "device", here / "stolen", channel="canary")
    with pytest.raises(Exception, match="not to be believed"):  # a device that never saw anything, too
        sync(here / "new device", here / "stolen", channel="canary")


def test_each_command_prints_one_object(fleet: Path) -> None:
    where = ("--repository", fleet, "--model", "waste")
    listed = ok(
        "publish", "waste-1.bundle", *where, "--bundle", 4, "--hardware", "cpu", "--hardware", "edgetpu"
    )
    assert listed["path"] == "waste/canary/waste-1.bundle"
    assert listed["bundle"] == 4
    assert Path(listed["file"]).name == f"{listed['sha256']}.waste-1.bundle"
    assert ok("promote", "waste-1.bundle", *where, "--to", "beta")["sha256"] == listed["sha256"]
    assert ok("rotate-key", "trainer-1", "--repository", fleet)["new"] == "trainer-2"
    assert set(ok("renew", "--repository", fleet)["renewed"]) == {"snapshot", "timestamp"}
    assert ok("init", fleet, "--model", "fruit")["models"] == ["fruit"]


def test_people_are_told_what_was_done(fleet: Path) -> None:
    said = call("publish", "waste-1.bundle", "--repository", fleet, "--model", "waste")
    assert re.search(r"listed as bundle 1, SHA-256 [0-9a-f]{64}", said.out)
    assert "signed anew: snapshot until" in call("renew", "--repository", fleet).out
    assert "release-2" in call("rotate-key", "release-1", "--repository", fleet).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("publish", "nothing", "--model", "waste"), "nothing cannot be read"),
        (("publish", "waste-1.bundle", "--model", "Waste"), "names no model"),
        (("publish", "waste-1.bundle", "--model", "fruit"), "init DIR --model fruit"),
        (
            ("publish", "waste-1.bundle", "--model", "waste", "--channel", "prod"),
            "choose canary, beta, stable",
        ),
        (("publish", "waste-1.bundle", "--model", "waste", "--bundle", "-1"), "bundle number"),
        (("promote", "waste-1.bundle", "--model", "waste", "--to", "beta"), "promote what was tried"),
        (("rotate-key", "king-1"), "choose release-1"),
        (("renew", "--passphrase-file", "nothing"), ""),
    ],
)
def test_bad_words_are_one_line(fleet: Path, words: tuple[str, ...], said: str) -> None:
    if words[0] == "renew":
        assert call(*words, "--repository", fleet).status == 0  # no key asks for the passphrase
        return
    assert said in refused(*words, "--repository", fleet)


def test_a_folder_without_repository_is_named(here: Path) -> None:
    assert "holds no repository" in refused("renew", "--repository", "nowhere")


def test_where_nobody_can_be_asked_the_passphrase_must_be_given(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HOST_TRAINER_PASSPHRASE")
    assert "--passphrase-file" in refused("rotate-key", "root-1", "--repository", fleet)
    (tmp_path / "words").write_text("correct horse\n")
    assert ok("rotate-key", "root-1", "--repository", fleet, "--passphrase-file", tmp_path / "words")
    (tmp_path / "words").write_text("\n")
    assert "no passphrase" in refused(
        "rotate-key", "root-2", "--repository", fleet, "--passphrase-file", tmp_path / "words"
    )


def test_a_passphrase_can_be_declined(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ok("init", "open", "--model", "waste", "--no-passphrase")
    monkeypatch.delenv("HOST_TRAINER_PASSPHRASE")
    assert ok("rotate-key", "root-1", "--repository", "open")["new"] == "root-4"


def test_a_second_init_of_the_same_model_changes_nothing(fleet: Path) -> None:
    def state() -> dict[str, Any]:
        return json.loads((fleet / "repository" / "metadata" / "timestamp.json").read_text())

    before = state()
    assert "already" in refused("init", fleet, "--model", "waste")
    assert state() == before


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "strace works")
@pytest.mark.parametrize("fault", ["signal=SIGKILL", "error=ENOSPC"])
def test_killed_at_a_writing_call_the_repository_is_valid_and_the_next_command_ends_it(
    here: Path, fleet: Path, fault: str
) -> None:
    ok("publish", "waste-1.bundle", "--repository", fleet, "--model", "waste", "--channel", "stable")
    fleet.rename(here / "whole")
    sync(here / "device", here / "whole")

    def prepare() -> None:
        for name, source in (("fleet", "whole"), ("asked", "device")):
            shutil.rmtree(here / name, ignore_errors=True)
            shutil.copytree(here / source, here / name)

    command = [PYTHON, "-m", "host_trainer.cli", "rotate-key", "trainer-1", "--repository", str(fleet)]
    hits = 0
    for outcome in run_failing_at(command, prepare, fault=fault, stride=4):
        hits += outcome.hit
        assert sync(here / "asked", fleet)[1] is not None, outcome
        ok("renew", "--repository", fleet)
        assert sync(here / "asked", fleet)[1] is not None, outcome
    assert hits > 10
