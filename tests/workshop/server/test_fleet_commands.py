"""The commands about a fleet, as a person types them, with a real server process between them."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simulators.caller import Caller, statistics
from simulators.foreman import call, ok, refused, started
from simulators.listing import list_bundle

from edge_cl.wire.enrolment import read_code

STOPPED_S = 20.0


@contextmanager
def serving(*words: object) -> Iterator[dict[str, Any]]:
    """Run `host-trainer serve`, yield what it says of itself and its process, and end it by SIGTERM."""
    process = started("serve", *words, "--port", 0, "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield {**json.loads(line), "process": process}
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(STOPPED_S)
        process.stdout.close()
        process.stderr.close()
    assert status == 0


def test_a_device_joins_by_what_is_printed_is_seen_and_shut_out(folder: Path) -> None:
    printed = ok("enroll", "pi-1", folder, "--level", "images")
    code = read_code(printed["code"])
    with serving(folder) as served:
        assert served["fingerprint"] == code.fingerprint.hex()
        context = ssl.create_default_context(cafile=str(folder / "tls" / "certificate.pem"))
        device = Caller(served["url"].rstrip("/"), int(time.time()), context=context)
        assert device.enrol(code.token).status == 200
        device.sync(1, statistics("pi-1"))
        found = ok("fleet", folder)
        assert [(each["name"], each["accuracy"], each["level"]) for each in found["devices"]] == [
            ("pi-1", 900, "images")
        ]
        assert found["count"]["active"] == 1
        assert found["contents"] == [
            {"level": "statistics", "state": "committed", "number": 1, "bytes": found["contents"][0]["bytes"]}
        ]
        said = call("fleet", folder)
        assert "pi-1" in said.out
        assert "just now" in said.out
        assert call("revoke", "pi-1", folder, "--discard").out == "pi-1 is revoked\n"
        assert device.ask(device.greet(2)).status == 403
        assert ok("fleet", folder)["contents"][0]["state"] == "quarantined"
        libraries = Path(f"/proc/{served['process'].pid}/maps").read_text()
        assert "sqlite" in libraries
        assert "tensorflow" not in libraries


def test_ctrl_c_ends_it_and_a_bundle_that_came_meanwhile_is_known(folder: Path) -> None:
    with serving(folder, "--insecure-loopback") as served:
        assert served["url"].startswith("http://localhost:")
        assert served["fingerprint"] == ""
    list_bundle(folder, 3)
    process = started("serve", folder, "--insecure-loopback", "--port", 0)
    assert process.stderr is not None
    heard = process.stderr.readline()
    assert "the fleet's page: http://localhost:" in heard
    deadline = time.monotonic() + STOPPED_S
    while not ok("fleet", folder)["bundles"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(STOPPED_S) == 130
    heard = process.stderr.read()
    assert "took in waste/canary/waste-3-any.bundle" in heard
    assert "Traceback" not in heard
    process.stderr.close()
    assert process.stdout is not None
    process.stdout.close()


def test_the_code_is_for_typing_and_the_secret_is_not_kept(folder: Path) -> None:
    said = call("enroll", "pi-1", folder, "--url", "https://host.example:8443", "--ttl", "15m")
    line = said.out.strip()
    assert line.startswith("edge-cl init --host https://host.example:8443 --code ECL1-")
    assert "15m" in said.err
    token = read_code(line.rpartition(" ")[2]).token
    assert all(token.hex().encode() not in path.read_bytes() for path in folder.glob("host.db*"))


def test_the_picture_of_the_command_reads_as_the_command(folder: Path, tmp_path: Path) -> None:
    import segno

    from host_trainer.commands.enroll import _picture

    line = ok("enroll", "pi-1", folder)["command"]
    drawn = _picture(line)
    rows = drawn.strip("\n").splitlines()
    assert max(len(row) for row in rows) <= 8 * 70  # with its colours
    assert segno.make(line, error="l", micro=False).symbol_size(border=2)[0] <= 70


def test_a_bundle_is_promoted_step_by_step_and_taken_back(folder: Path) -> None:
    listed = list_bundle(folder, 3)
    name = listed.path.rpartition("/")[2]
    steps = ("--share", "10,50,100", "--success", 75, "--error", 30)
    promoted = ok("promote", name, "--repository", folder, "--model", "waste", "--to", "beta", *steps)
    assert promoted["bundle"] == 3
    (rollout,) = ok("fleet", folder)["rollouts"]
    assert (rollout["channel"], rollout["share"], rollout["steps"]) == ("beta", 100, [500, 1000])
    again = ok("rollout", 3, folder, "--channel", "beta", "--share", "50,100")
    assert (again["share"], again["steps"], again["success"]) == (500, [1000], 900)
    taken_back = ok("rollback", 3, folder, "--why", "confuses mugs and forks")
    assert taken_back["listings"] == 2
    found = {each["channel"]: each["reason"] for each in ok("fleet", folder)["bundles"]}
    assert found == dict.fromkeys(("canary", "beta"), "confuses mugs and forks")
    assert "offered nowhere" in refused("rollback", 3, folder)
    assert "offered nowhere" in refused("rollback", 4, folder)


def test_a_promotion_that_is_refused_rolls_nothing_out(folder: Path) -> None:
    words = ("promote", "nothing.bundle", "--repository", folder, "--model", "waste", "--to", "beta")
    assert "promote what was tried" in refused(*words, "--share", "10,100")
    assert ok("fleet", folder)["rollouts"] == []


def test_classes_are_renamed_merged_and_split(folder: Path) -> None:
    list_bundle(folder, 3)
    assert call("classes", folder).out == "no bundle yet, and no class was renamed\n"
    first = ok("classes", folder, "--from", "cup", "--from", "Mug", "--into", "mug")
    assert [each["into"] for each in first["edits"]] == ["mug"]
    said = call(
        *("classes", folder, "--from", "fork", "--into", "cutlery"),
        *("--except", "pi-1:17=spoon", "--except", "pi-2:3=spoon"),
    )
    assert said.out == "2. fork -> cutlery, 2 of them spoon\n"
    assert ok("classes", folder)["edits"][1]["version"] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("classes", "FLEET", "--from", "cup"), "--into"),
        (("classes", "FLEET", "--into", "cup"), "--from"),
        (("classes", "FLEET", "--except", "pi-1:1=cup"), "goes with"),
        (("classes", "FLEET", "--from", "a", "--into", "b", "--except", "pi-1=cup"), "DEVICE:SAMPLE=CLASS"),
        (("classes", "FLEET", "--from", "a", "--into", "../b"), ""),
        (("classes", "FLEET", "--from", "a", "--from", "A", "--into", "b"), "cannot be changed"),
        (("rollout", 3, "FLEET", "--share", "50,10"), "rise from step to step"),
        (("rollout", 3, "FLEET", "--share", "many"), "no percentage"),
        (("rollout", 3, "FLEET", "--share", "0"), "rise from step to step"),
        (("rollout", 3, "FLEET", "--channel", "gold"), "canary, beta, stable"),
        (("enroll", "Pi 1", "FLEET"), "names no device"),
        (("enroll", "pi", "FLEET", "--channel", "gold"), "canary, beta, stable"),
        (("enroll", "pi", "FLEET", "--level", "all"), "statistics, features, images"),
        (("enroll", "pi", "FLEET", "--ttl", "soon"), "90s, 15m, 1h, 7d"),
        (("enroll", "pi", "FLEET", "--model", "fruit"), "no model fruit, but waste"),
        (("enroll", "pi", "nowhere"), "host-trainer init"),
        (("revoke", "pi-9", "FLEET"), "there is no device pi-9"),
        (("fleet", "nowhere"), "host-trainer init"),
        (("serve", "nowhere"), "host-trainer init"),
        (("serve", "FLEET", "--insecure-loopback", "--host", "0.0.0.0"), "this machine alone"),
        (("serve", "FLEET", "--host", "203.0.113.7"), "choose another --host"),
        (("serve", "FLEET", "--page", "somewhere"), "here nor everywhere"),
        (("serve", "FLEET", "--database", "oracle://x"), "postgresql://"),
        (("serve", "FLEET", "--objects", "/tmp"), "s3://"),
        (("serve", "FLEET", "--interval", "0s"), "length of time"),
    ],
)
def test_bad_words_are_one_line(folder: Path, words: tuple[str, ...], said: str) -> None:
    assert said in refused(*(str(folder) if word == "FLEET" else word for word in words))


def test_a_fleet_of_several_models_wants_to_know_which(folder: Path) -> None:
    ok("init", folder, "--model", "fruit", "--no-passphrase")
    assert "--model: fruit, waste" in refused("enroll", "pi", folder)
    assert ok("enroll", "pi", folder, "--model", "fruit")["device"] == "pi"


def test_starting_the_server_imports_no_tensorflow() -> None:
    code = (
        "import sys, host_trainer.commands, host_trainer.server.web.app, host_trainer.server.upkeep;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert not {"tensorflow", "keras", "jax", "onnx", "psycopg"} & set(done.stdout.split())
