"""A fleet at a host: many devices enrol and sync at once, by the real client over HTTP, on one machine.

The host is `host-trainer serve` in a process of its own, on SQLite or on a PostgreSQL that is started for it.
Devices are threads of this process: each has a state folder with a real outbox, signs, greets, sends what
five classes have taught it in chunks, commits, asks what is offered and reports, twice. Counted at the end:
what the host holds of every device, against what the device has told, bit for bit; and every refusal.
Expected time on two slow cores: 1,000 devices 4 minutes, 10,000 forty.

    python benchmarks/load.py [--devices 1000] [--threads 32] [--postgresql] [--write]
"""

import argparse
import contextlib
import functools
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import ledger
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from simulators import postgres
from simulators.devices import SPACE, drawn_samples

from edge_cl.config import SyncSettings
from edge_cl.device.sync.enrolment import enrol
from edge_cl.device.sync.knowledge import Knowledge
from edge_cl.device.sync.line import Line
from edge_cl.device.sync.outbox import open_outbox
from edge_cl.device.sync.session import Board, Fare, RefusedError, Session
from edge_cl.device.transport import Transport
from edge_cl.errors import TransportError
from edge_cl.learning.named import Named, on
from edge_cl.learning.statistics import Statistics, empty_statistics
from edge_cl.wire.codec import decode
from edge_cl.wire.enrolment import Code, write_code
from edge_cl.wire.messages import STATISTICS
from edge_cl.wire.messages import Statistics as Message
from host_trainer.retraining.samples import statistics_of

MODEL, CHANNEL = "waste", "canary"
LABELS = ("glass", "metal", "paper", "plastic", "trash")
ROUNDS = 2
KINDS = 16  # different devices' knowledge; making it is not what is measured
TRIES = 20  # of a round before a device gives up: the bounded queue says come back later
LONGEST_S = 4.0
ADDRESS = re.compile(r"http://localhost:(\d+)")
STARTED_S = 60.0


class Host(NamedTuple):
    """A host that runs: its address, folder, database, and the code that lets every device in."""

    url: str
    folder: Path
    database: str
    code: str


class Heard(NamedTuple):
    """What a device went through: seconds of its rounds, refusals by word, bytes up, and what it has told."""

    seconds: list[float]
    refusals: Counter[str]
    up: int
    told: Statistics


@functools.cache
def knowledge(kind: int, taught: int) -> Knowledge:
    """Return what a device knows that was taught so many samples of each class."""
    samples = drawn_samples(LABELS, taught, seed=kind)
    own = Named(LABELS, statistics_of(samples, LABELS, SPACE.zero_point))
    count = len(samples.labels)
    return Knowledge(SPACE, own, (), {}, dict, lambda _: {}, lambda _: None, count, 0, 900)


def live(number: int, folder: Path, host: Host) -> Heard:
    """Enrol one device and have its rounds."""
    state, heard = folder / f"d{number:05d}", Heard([], Counter(), 0, empty_statistics(SPACE.size))
    state.mkdir()
    _patiently(lambda: enrol(state, host.url, host.code, ("cpu",), f"d{number:05d}"), heard)
    for turn in range(ROUNDS):
        known = knowledge(number % KINDS, 4 * (turn + 1))  # more than the few that would not be told
        begin = time.perf_counter()
        up, told = _patiently(functools.partial(_round, state, host, known), heard)
        heard.seconds.append(time.perf_counter() - begin)
        heard = heard._replace(up=heard.up + up, told=told)
    return heard


def _round(state: Path, host: Host, known: Knowledge) -> tuple[int, Statistics]:
    with open_outbox(state) as outbox, Transport().talk(host.url) as talk:
        enrolment = outbox.enrolment()
        assert enrolment is not None
        line = Line(talk, outbox, enrolment, int(time.time()))
        session = Session(line, outbox, SyncSettings(STATISTICS), known, Board(("cpu",), 0, known.space.id))
        session.tell()
        session.report(Fare())
        told = outbox.told(outbox.newest())
        assert told is not None
        return line.traffic.up, on(told.named(), LABELS)


def _patiently(act, heard: Heard):  # type: ignore[no-untyped-def]
    """Do it, and again after a while where the host is busy, as `edge-cl sync --watch` would."""
    for attempt in range(TRIES):
        try:
            return act()
        except TransportError as error:
            heard.refusals["busy" if isinstance(error, RefusedError) else str(error)[:60]] += 1
            time.sleep(min(LONGEST_S, 0.1 * 2**attempt))
    return act()


@contextlib.contextmanager
def hosting(folder: Path, devices: int, database: str) -> Iterator[Host]:
    """Found a fleet and serve it."""
    fleet = folder / "fleet"
    trainer = [Path(sys.executable).with_name("host-trainer")]
    options = ["--database", database] if database else []
    subprocess.run(
        [*trainer, "init", fleet, "--model", MODEL, "--no-passphrase"], check=True, stdout=sys.stderr
    )
    serve = [*trainer, "serve", fleet, "--insecure-loopback", "--host", "127.0.0.1", "--port", "0", *options]
    log = (folder / "log").open("w+")
    with subprocess.Popen(serve, stdout=log, stderr=log) as server:
        try:
            url = _address(Path(log.name), server)
            yield Host(url, fleet, database, _code(fleet, database, devices))
        finally:
            server.terminate()


def _address(log: Path, server: subprocess.Popen) -> str:
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end and server.poll() is None:
        if found := ADDRESS.search(log.read_text("utf-8")):
            return f"http://127.0.0.1:{found[1]}"
        time.sleep(0.1)
    raise SystemExit(f"the host does not start:\n{log.read_text('utf-8')}")


def _code(folder: Path, database: str, devices: int) -> str:
    from host_trainer.server import devices as enrolled
    from host_trainer.server.devices import Terms
    from host_trainer.server.fleet import Address, open_fleet

    with open_fleet(folder, Address(database, "", "")) as fleet, fleet.database.writing() as session:
        terms = Terms("device", MODEL, CHANNEL, STATISTICS)
        return write_code(Code(enrolled.make_code(session, terms, int(time.time()), 86_400, devices)))


def held(host: Host) -> dict[str, Statistics]:
    """Return what every device has told, as the host adds it up from the contents it holds."""
    from host_trainer.retraining.told import taken_in
    from host_trainer.server.contents import Contents
    from host_trainer.server.fleet import Address, open_fleet

    with open_fleet(host.folder, Address(host.database, "", "")) as fleet:
        contents, found = Contents(fleet.database, fleet.objects), {}
        for device in {each.device for each in contents.listed(MODEL)}:
            told = None
            for each in contents.told(device):
                message = decode(contents.read(each), Message)
                told = taken_in(told, message, each.id, ())
            assert told is not None
            found[device] = on(Named(told.labels, told.statistics()), LABELS)
    return found


def are_equal(one: Statistics, other: Statistics | None) -> bool:
    """Tell whether two ends know the same, bit for bit."""
    return other is not None and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def rows(name: str, heard: list[Heard], kept: dict[str, Statistics], seconds: float) -> list[ledger.Row]:
    """Hold what was counted against the targets."""
    times = np.array([each for one in heard for each in one.seconds])
    lost = sum(not are_equal(one.told, kept.get(f"d{i:05d}")) for i, one in enumerate(heard))
    refusals = sum((one.refusals for one in heard), Counter())
    broken = sum(count for word, count in refusals.items() if "status 5" in word)
    size = sum(one.up for one in heard) / len(heard) / ROUNDS
    said = ", ".join(f"{count} x {word}" for word, count in refusals.most_common(4)) or "none"
    what = f"{len(heard):,} devices, {name}"
    return [
        ledger.at_most(f"{what}: devices of which the host knows other than they told", lost, 0, digits=0),
        ledger.at_most(f"{what}: answers with status 5xx", broken, 0, digits=0),
        ledger.Row(f"{what}: rounds a second", f"{len(times) / seconds:.1f}"),
        ledger.Row(
            f"{what}: a round, median and p99", f"{np.median(times):.2f} s, {np.quantile(times, 0.99):.2f} s"
        ),
        ledger.Row(f"{what}: bytes up a round, D = {SPACE.size}", f"{size:,.0f}"),
        ledger.Row(f"{what}: told to come back later", said),
    ]


def main() -> None:
    """Run a fleet and say what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--devices", type=int, default=1000, metavar="N")
    parser.add_argument(
        "--threads", type=int, default=32, metavar="N", help="devices at a time (%(default)s)"
    )
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--write", action="store_true", help="put rows into the ledger")
    args = parser.parse_args()
    threading.stack_size(1 << 20)
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        database = stack.enter_context(postgres.cluster()) if args.postgresql else ""
        host = stack.enter_context(hosting(Path(place), args.devices, database))
        devices, begin = Path(place) / "devices", time.perf_counter()
        devices.mkdir()
        with ThreadPoolExecutor(args.threads) as pool:
            heard = []
            for number, one in enumerate(pool.map(lambda n: live(n, devices, host), range(args.devices)), 1):
                heard.append(one)
                if number % 100 == 0:
                    print(
                        f"{number} devices, {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True
                    )
        seconds = time.perf_counter() - begin
        told = rows("PostgreSQL" if args.postgresql else "SQLite", heard, held(host), seconds)
    ledger.show("A fleet at a host", told)
    if args.write:
        section = "load-postgresql" if args.postgresql else "load-sqlite"
        command = f"python benchmarks/load.py --devices {args.devices}" + " --postgresql" * args.postgresql
        ledger.write(section, command, ledger.rows_table(told))


if __name__ == "__main__":
    ledger.on_one_thread()  # of each of the many threads; they would wait for each other's
    main()
