"""`edge-cl init --host` and `edge-cl sync` as a person meets them: words, JSON, exit status, no surprise."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from simulators.hosting import Hosted, hosting
from simulators.workshop import call, ok, refused

from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.release.publisher import found_repository
from host_trainer.server import devices

WAIT_S = 30.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Hosted]:
    place = RepositoryFolder(tmp_path / "FLEET")
    ring = Keyring(place.key_folders(), lambda words: b"")
    found_repository(place, ring, ["waste"], b"", datetime.now(timezone.utc))
    with hosting(place.folder, tls=True) as hosted:
        yield hosted


def set_sync(state: Path, text: str, classes: str = "") -> None:
    """Replace [sync] in config.toml."""
    path = state / "config.toml"
    before, _, after = path.read_text().partition("[sync]")
    _, _, rest = after.partition("\n\n[sync.classes]")
    _, mark, others = rest.partition("\n\n[")
    path.write_text(f"{before}[sync]\n{text}\n\n[sync.classes]\n{classes}\n{mark}{others}")


def test_a_new_device_is_made_and_enrolled_in_one_line(host: Hosted, backbone: Path, tmp_path: Path) -> None:
    state, code = tmp_path / "new", host.code("pi-1")
    found = ok("init", "--state", state, "--backbone", backbone, "--host", host.url, "--code", code)
    assert found["is_new"]
    assert found["enrolment"] == {
        **{"host": host.url, "device": "pi-1", "model": "waste", "channel": "canary"},
        **{"most": "images", "level": "statistics"},
    }
    said = call("sync", "--state", state)
    assert said.status == 0, said
    assert "told nothing new" in said.out


def test_a_taught_device_is_enrolled_and_tells_what_the_dry_run_said(taught: Path, host: Hosted) -> None:
    before = ok("sync", "--dry-run", "--state", taught)
    assert before["host"] is None
    said = call("init", "--state", taught, "--host", host.url, "--code", host.code("pi-1"))
    assert said.status == 0, said
    assert "enrolled with https://127.0.0.1" in said.out
    assert "a new learner" not in said.out
    dry = ok("sync", "--dry-run", "--state", taught)
    assert [(each["label"], each["verdict"], each["samples"]) for each in dry["classes"]] == [
        ("0", "told", 6),
        ("1", "told", 6),
        ("2", "told", 6),
    ]
    assert "never synced" in call("status", "--state", taught).out
    found = ok("sync", "--state", taught)
    assert "as pi-1, last synced 20" in call("status", "--state", taught).out
    assert ok("status", "--state", taught)["host"]["round"] == 1
    assert found["sent"] == dry["contents"]  # to the byte: the id is the hash of what left
    assert dry["packed_statistics_bytes"] <= found["up_bytes"] <= dry["packed_statistics_bytes"] + 1_500
    assert ok("sync", "--dry-run", "--state", taught)["classes"][0]["verdict"] == "unchanged"


def test_a_dry_run_opens_no_connection(taught: Path, host: Hosted) -> None:
    ok("init", "--state", taught, "--host", host.url, "--code", host.code("pi-1"))
    program = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise SystemExit('a connection')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from edge_cl.cli import main\n"
        f"sys.exit(main(['sync', '--dry-run', '--json', '--state', {str(taught)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["contents"]


def test_the_words_of_a_dry_run_name_every_class_and_what_stays(taught: Path, photos: Path) -> None:
    two = photos / "few"
    two.mkdir()
    for path in sorted((photos / "0").iterdir())[:2]:
        (two / f"other-{path.name}").write_bytes(path.read_bytes() + b"x")
    set_sync(taught, 'level = "features"', '"0" = "never"\n"few" = "statistics"')
    ok("learn", "--label", "few", *sorted(two.iterdir()), "--state", taught)
    said = call("sync", "--dry-run", "--state", taught)
    assert said.status == 0
    lines = {line.strip().partition(":")[0]: line for line in said.out.splitlines()}
    assert "private" in lines["0"]
    assert "features of 6 samples" in lines["1"]
    assert "2 samples do not hide each other yet" in lines["few"]
    assert "a class of fewer than 3 samples stays here" in said.out


WRONG = (
    (["--host", "http://192.0.2.7:8443", "--code", "{code}"], "in the clear"),
    (["--host", "https://host.example", "--code", "ECL1-nonsense"], "not a code"),
    (["--host", "{url}"], "go together"),
    (["--code", "{code}"], "go together"),
    (["--host", "{url}", "--code", "{code}", "--name", "My Pi"], "a-z, 0-9"),
    (["--host", "{url}", "--code", "{used}"], "lets nobody in"),
)


def test_what_is_wrong_with_an_enrolment_is_a_line_and_changes_nothing(
    taught: Path, host: Hosted, tmp_path: Path
) -> None:
    other = shutil.copytree(taught, tmp_path / "other")
    used = host.code("pi-9")
    ok("init", "--state", other, "--host", host.url, "--code", used)
    names = {"url": host.url, "code": host.code("pi-1"), "used": used}
    for words, said in WRONG:
        assert said in refused("init", "--state", taught, *(word.format(**names) for word in words))
    assert "not enrolled" in refused("sync", "--state", taught)


def test_who_is_not_enrolled_or_not_any_more_is_told_what_to_do(taught: Path, host: Hosted) -> None:
    assert "edge-cl init --host" in refused("sync", "--state", taught)
    assert "edge-cl init --host" in refused("sync", "--watch", "--state", taught)
    ok("init", "--state", taught, "--host", host.url, "--code", host.code("pi-1"))
    with host.fleet.database.writing() as session:
        devices.revoke(session, "pi-1")
    assert "new code" in refused("sync", "--state", taught)
    assert "new code" in refused("sync", "--watch", "--state", taught)


def test_a_host_that_is_gone_is_one_line_and_status_one(taught: Path, tmp_path: Path) -> None:
    place = RepositoryFolder(tmp_path / "GONE")
    ring = Keyring(place.key_folders(), lambda words: b"")
    found_repository(place, ring, ["waste"], b"", datetime.now(timezone.utc))
    with hosting(place.folder, tls=True) as hosted:
        ok("init", "--state", taught, "--host", hosted.url, "--code", hosted.code("pi-1"))
    said = call("sync", "--state", taught)
    assert said.status == 1
    assert len(said.err.splitlines()) == 1
    assert "tried again later" in said.err
    assert ok("predict", next((tmp_path / "PHOTOS").glob("*/*")), "--state", taught)  # what runs goes on


def watching(state: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "edge_cl.cli", "sync", "--watch", "--json", "--state", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_watching_syncs_when_it_is_due_and_at_a_button(taught: Path, host: Hosted) -> None:
    ok("init", "--state", taught, "--host", host.url, "--code", host.code("pi-1"))
    watch = watching(taught)
    try:
        assert watch.stderr is not None
        assert watch.stderr.readline().startswith("edge-cl: time: round 1")
        watch.send_signal(signal.SIGUSR1)
        assert watch.stderr.readline().startswith("edge-cl: button: round 2")
        (taught / "sync-now").touch()
        assert watch.stderr.readline().startswith("edge-cl: button: round 3")
        assert not (taught / "sync-now").exists()
        time.sleep(0.1)
        watch.send_signal(signal.SIGINT)
        out, _ = watch.communicate(timeout=WAIT_S)
    finally:
        watch.kill()
    assert json.loads(out)["rounds"] == 3
    assert watch.returncode == 130
