"""The mission, `make run`: two devices and a host on one machine, from the first release to a bad one undone.

It drives `edge-cl` and `host-trainer` as people would, in a temporary folder. A host makes a first release
that knows two kinds of things and serves it signed. Two devices join by a one-time code, take the release,
and each is taught kinds of its own from real pictures. They sync; the host learns from both, proves the
result on pictures that no device has sent, and publishes it; each device tries it in the shadow of what it
runs, swaps, and then knows what the other was taught. Then three things go wrong: a file is changed on the
way, a worse release is signed by mistake, and one that passed every test dies in daily use.

Pictures as for `demo.py`, the story of one device alone: photographs of waste where EDGE_CL_DATA has them,
else handwritten digits; the backbone is the one that ships.
Expected time: 4 minutes on two cores.

    make run
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ledger
import photographs
from demo import BAR, SET, Device, Story, act, handwriting, waste

from edge_cl.device import shipped
from edge_cl.wire.bundle import pack, read_manifest, unpack
from edge_cl.wire.messages import LEVELS

MODEL, CHANNEL = "sorter", "canary"
PICTURES = {"train": 48, "test": 24}  # of a class: taught, and asked about
JUDGED = 12  # of those asked about, of a kind: the host's own, to judge releases by
KNOWN, TAUGHT = 2, 2  # kinds of the first release, and of each device
NAMES = ("kitchen", "garage")
PAGE = re.compile(r"http://localhost:\d+/")
STARTED_S = 60.0
OFFERED_TRIES = 10
TRAINING = ("--epochs", "20", "--sparsity", "0.25", "--rate", "0.003")  # of a network that has learned before
DEATHS = 3  # after which a release on probation is undone
# What the owner of a device decides: all may leave, and a release is kept after a few answers.
SETTINGS = {
    'level = "statistics"': 'level = "images"',
    "keep_jpeg = false": "keep_jpeg = true",
    "predictions = 100": "predictions = 8",
    "minutes = 60": "minutes = 0",
}


class Host:
    """The command line of the workshop on one fleet's folder."""

    def __init__(self, fleet: Path) -> None:
        self.fleet, self.page = fleet, ""
        self._command = str(Path(sys.executable).with_name("host-trainer"))

    def run(self, *words: str, expected: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a command to its end and return what it says with --json."""
        done = subprocess.run([self._command, *words, "--json"], capture_output=True, text=True)
        if done.returncode not in expected:
            raise SystemExit(f"host-trainer {words[0]} ended with {done.returncode}: {done.stderr.strip()}")
        return dict(json.loads(done.stdout))

    @contextlib.contextmanager
    def serving(self, log: Path) -> Iterator[None]:
        """Serve the fleet until the block ends; `page` is where."""
        words = [self._command, "serve", str(self.fleet), "--insecure-loopback", "--port", "0"]
        with log.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file) as process:
            try:
                self.page = self._page(log, process)
                yield
            finally:
                process.terminate()

    def _page(self, log: Path, process: subprocess.Popen) -> str:
        end = time.monotonic() + STARTED_S
        while time.monotonic() < end and process.poll() is None:
            if found := PAGE.search(log.read_text("utf-8")):
                return found[0]
            time.sleep(0.1)
        raise SystemExit(f"the host does not start: {log.read_text('utf-8')}")


def main() -> None:
    story = waste() if photographs.are_here(SET) else handwriting()
    begin, home = time.monotonic(), Path(tempfile.mkdtemp(prefix="edge-cl-mission-"))
    photos, host = home / "photos", Host(home / "fleet")
    story.unpack(photos, PICTURES)
    kinds = sorted(path.name for path in (photos / "train").iterdir())[: KNOWN + TAUGHT * len(NAMES)]
    shares = {name: kinds[KNOWN + TAUGHT * i :][:TAUGHT] for i, name in enumerate(NAMES)}
    _share(photos, kinds)
    act(1, f"A host makes its first release, which knows {_and(kinds[:KNOWN])}")
    _found(host, story, photos)
    with host.serving(home / "host.log"):
        act(2, "Two devices join, by a code that lets each of them in once")
        devices = {name: _join(host, home, name) for name in NAMES}
        act(3, f"Each is taught {story.kinds} of its own")
        for name, device in devices.items():
            _teach(device, name, photos, shares[name])
        _show(devices, photos, kinds)
        act(4, "They tell the host, and the host learns from both, and proves it")
        for name, device in devices.items():
            _tell(device, name)
        _retrain(host)
        act(5, "Each device fetches the release, tries it beside what it runs, and takes it")
        for name, device in devices.items():
            _take(device, name, 2)
        _show(devices, photos, kinds)
        act(6, "Three things go wrong")
        _tampered(host, devices["kitchen"], home)
        _worse(host, devices["kitchen"], home)
        _deadly(host, devices["garage"], photos, kinds, home)
        _show(devices, photos, kinds)
        print(f"\nThat took {time.monotonic() - begin:.0f} s. The fleet, as its page shows it: {host.page}")
        _wait()
    print(f"All of it is in {home}: host-trainer serve {host.fleet} --insecure-loopback shows the page again")


def _share(photos: Path, kinds: Sequence[str]) -> None:
    """Put aside what the host judges by, and what it begins with."""
    for kind in kinds:
        (photos / "judged" / kind).mkdir(parents=True)
        for path in sorted((photos / "test" / kind).iterdir())[:JUDGED]:
            path.rename(photos / "judged" / kind / path.name)
    for kind in kinds[:KNOWN]:
        shutil.copytree(photos / "train" / kind, photos / "first" / kind)


def _found(host: Host, story: Story, photos: Path) -> None:
    backbone = shipped.find()
    if backbone is None:
        raise SystemExit(f"{shipped.BACKBONE} is missing in models/: bring it back")
    print(f"  $ host-trainer init fleet --model {MODEL}")
    host.run("init", str(host.fleet), "--model", MODEL, "--no-passphrase")
    mirror = [] if story.is_mirror else ["--no-mirror"]
    augment = "flip,crop" if story.is_mirror else "crop"
    network = str(host.fleet.with_name("network"))
    print(
        f"  $ host-trainer train --network {backbone.name} --method sparcl-derpp --data first --out network",
        flush=True,
    )
    host.run(
        *("train", "--network", str(backbone), "--data", str(photos / "first"), "--out", network),
        *("--method", "sparcl-derpp", "--tasks", "1", "--augment", augment, *TRAINING),
    )
    print(
        f"  $ host-trainer retrain fleet --model {MODEL} --first --network network --data first", flush=True
    )
    made = host.run(
        *("retrain", str(host.fleet), "--model", MODEL, "--first", "--network", network),
        *("--data", str(photos / "first"), "--held-out", str(photos / "judged"), *mirror),
    )
    print(f"  bundle {made['bundle']} is proven, signed, and listed in {CHANNEL}")


def _join(host: Host, home: Path, name: str) -> Device:
    device = Device(home / name)
    words = ("--channel", CHANNEL, "--level", "images", "--url", host.page, "--insecure-loopback", "--no-qr")
    code = host.run("enroll", name, str(host.fleet), *words)["code"]
    device.run("init", "--host", host.page, "--code", code)
    settings = (device.state / "config.toml").read_text("utf-8")
    for line, instead in SETTINGS.items():
        assert line in settings, f"config.toml has no line {line!r}"
        settings = settings.replace(line, instead)
    (device.state / "config.toml").write_text(settings, "utf-8")
    print(f"  {name:8} $ edge-cl init --host {host.page} --code {code}")
    _take(device, name)
    return device


def _teach(device: Device, name: str, photos: Path, share: Sequence[str]) -> None:
    for kind in share:
        files = [str(path) for path in sorted((photos / "train" / kind).iterdir())]
        device.run("learn", "--label", kind, *files)
        print(f"  {name:8} $ edge-cl learn --label {kind} ... ({len(files)} pictures)", flush=True)


def _tell(device: Device, name: str) -> None:
    found = device.run("sync")
    levels = {level: sum(each["level"] == level for each in found["sent"]) for level in LEVELS}
    said = ", ".join(f"{count} of {level}" for level, count in levels.items() if count)
    print(f"  {name:8} $ edge-cl sync: {said}; {found['up_bytes'] / 1e3:,.0f} kB up", flush=True)


def _retrain(host: Host) -> None:
    print(f"  host     $ host-trainer retrain fleet --model {MODEL}", flush=True)
    made = host.run("retrain", str(host.fleet), "--model", MODEL, expected=(0, 1))
    if not made["accepted"]:
        raise SystemExit(f"the gate rejects what was learned: {'; '.join(made['reasons'])}")
    print(f"  bundle {made['bundle']} passed the gate; the report: {made['folder']}/report.html")


def _take(device: Device, name: str, bundle: int = 0) -> None:
    """Sync, once that bundle is offered, and say what became of it."""
    for _ in range(OFFERED_TRIES):
        found = device.run("sync")
        if not bundle or found["bundle_offered"] == bundle:
            break
        time.sleep(1)  # the host looks every second whether something was published
    print(f"  {name:8} $ edge-cl sync: {_standing(device)}", flush=True)
    for note in found["notes"]:
        print(f"           {note}")


def _standing(device: Device) -> str:
    found = device.run("status")["release"]
    tried = f"; bundle {found['tried']}: {found['installation']}" if found["tried"] != found["bundle"] else ""
    reason = f", {found['reason']}" if found["reason"] else ""
    state = "" if tried else f" ({found['installation']})"
    return f"bundle {found['bundle']} runs{state}{tried}{reason}"


def _show(devices: dict[str, Device], photos: Path, kinds: Sequence[str]) -> None:
    """Ask every device about unseen pictures of every kind."""
    print()
    for name, device in devices.items():
        shares = []
        for kind in kinds:
            files = sorted((photos / "test" / kind).iterdir())
            told = device.run("predict", *map(str, files))["predictions"]
            shares.append(sum(one["best"] == kind for one in told) / len(files))
        whole = sum(shares) / len(shares)
        words = "  ".join(f"{kind} {100 * share:3.0f}" for kind, share in zip(kinds, shares, strict=True))
        print(f"  {name:8} {'#' * round(BAR * whole):.<{BAR}} {100 * whole:5.1f} %   {words}", flush=True)


# -- what goes wrong -------------------------------------------------------------------------------------


def _tampered(host: Host, device: Device, home: Path) -> None:
    listed = _publish(host, _renumbered(host, 3), home / "three.bundle", 3)
    file = Path(listed["file"])
    honest = file.read_bytes()
    spoiled = bytearray(honest)
    spoiled[len(spoiled) // 2] ^= 1
    file.write_bytes(spoiled)
    print("  bundle 3 is published, and somebody changes one bit of it on the web server")
    _take(device, "kitchen", 3)
    _expect(device, 2, "commit")
    file.write_bytes(honest)


def _worse(host: Host, device: Device, home: Path) -> None:
    print("\n  bundle 4 is signed by mistake: its classes are in the wrong order")
    _publish(host, _renumbered(host, 4, is_confused=True), home / "four.bundle", 4)
    _take(device, "kitchen", 4)
    _expect(device, 2, "rollback")


def _deadly(host: Host, device: Device, photos: Path, kinds: Sequence[str], home: Path) -> None:
    print("\n  bundle 5 passes every test, and then the program dies with it, again and again (kill -9)")
    _publish(host, _renumbered(host, 5), home / "five.bundle", 5)
    _take(device, "garage", 5)
    files = [str(path) for kind in kinds for path in sorted((photos / "test" / kind).iterdir())]
    marks = device.state / "installation" / "watch"
    for _ in range(DEATHS):
        _kill_at_work(device.start("predict", *files), marks)
        print("  garage   $ edge-cl predict ... killed")
    device.run("predict", files[0])
    print(f"  garage   $ edge-cl predict: {_standing(device)}")
    _expect(device, 2, "rollback")
    device.run("sync")  # so the host knows, too, and its page says so


def _expect(device: Device, bundle: int, state: str) -> None:
    """End the story here unless that bundle runs, and the last one that was tried came to that state."""
    found = device.run("status")["release"]
    if (found["bundle"], found["installation"]) != (bundle, state):
        raise SystemExit(f"bundle {bundle} should run and the last one stand at {state}: {found}")


def _kill_at_work(process: subprocess.Popen, marks: Path) -> None:
    """Kill a process in the middle of an answer: held still, it still has the mark that it answers under."""
    dead = set(marks.glob("run-*"))
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        if set(marks.glob("run-*")) - dead:
            break
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    process.kill()
    process.wait()


def _renumbered(host: Host, number: int, is_confused: bool = False) -> bytes:
    """Return the whole bundle of the host's second run under another number, its classes in another order."""
    found = unpack((host.fleet / "runs" / "2" / "5-bundle" / "whole.bundle").read_bytes())
    labels = found.manifest.labels
    labels = (*labels[1:], labels[0]) if is_confused else labels
    return pack(replace(found.manifest, bundle=number, labels=labels), found.files)


def _publish(host: Host, data: bytes, file: Path, number: int) -> dict[str, Any]:
    file.write_bytes(data)
    facts = read_manifest(data)[0].facts
    hardware = [word for each in facts.hardware for word in ("--hardware", each)]
    return host.run(
        *("publish", str(file), "--repository", str(host.fleet), "--model", MODEL, "--channel", CHANNEL),
        *("--bundle", str(number), "--runtime-from", facts.runtime_from, *hardware),
    )


def _wait() -> None:
    """Keep the page up for whoever looks, until Ctrl-C; not where nobody can look."""
    if not sys.stdout.isatty():
        return
    print("Look at it, then press Ctrl-C.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(60)


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
