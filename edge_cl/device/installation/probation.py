"""Watches a release on probation: counts answers, crashes and mistakes, and decides whether it may stay.

    installation/watch/tally.json     what was counted
    installation/watch/run-*          one for each process at work, locked by it; one without a lock has died

A mark is persisted before the release's backbone is asked and removed after it, so a crash counts whatever
made it. Nothing here is read or written while no release is on probation.
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_cl.config import InstallationSettings
from edge_cl.device import install
from edge_cl.device.installation import records, swapping
from edge_cl.device.installation.released import read_release
from edge_cl.device.installation.states import FAILED, PASSED, PROBATION, ROLLBACK, Record, advance
from edge_cl.errors import EngineError, StoreError
from edge_cl.memory.disk import guarded, sync_folder
from edge_cl.wire.bundle import Gates

WATCH = "watch"
TALLY, LOCK, MARK = "tally.json", "lock", "run-"
LATENCIES = 31  # kept of the last answers; their median is judged
LEAST_LATENCIES = 10
LEAST_JUDGED = 20  # answers before learning below which they say nothing
ERRORS = 2.0  # standard errors that a fall must exceed to be none of luck
PER_MILLE = 1000


class Tally(NamedTuple):
    """What was counted of a release on probation.

    Attributes:
        staged: hash under which it lies in the state folder.
        predictions: answers that were given.
        crashes: processes that died, and engines that failed, while it was asked.
        latencies: microseconds of a feature, of the last answers.
        judged: answers given before a sample was learned, where its class was known.
        right: those among them that were right.
    """

    staged: str
    predictions: int = 0
    crashes: int = 0
    latencies: tuple[int, ...] = ()
    judged: int = 0
    right: int = 0


class Verdict(NamedTuple):
    """PASSED, or FAILED with the reason for a person; "" while it is too early to say."""

    event: str
    reason: str = ""


def verdict(
    tally: Tally, record: Record, gates: Gates, settings: InstallationSettings, now: float | None
) -> Verdict:
    """Decide on a release by what was counted.

    `now` is in seconds since 1970; None asks only whether it has failed.
    """
    if tally.crashes >= settings.crashes:
        return Verdict(FAILED, f"the program died or failed {tally.crashes} times with it")
    budgets = [each for each in (gates.latency / 1000, settings.latency_ms) if each]
    if budgets and len(tally.latencies) >= LEAST_LATENCIES:
        took = float(np.median(tally.latencies)) / 1000
        if took > min(budgets):
            return Verdict(
                FAILED, f"one picture takes {took:.1f} ms, more than {min(budgets):.1f} ms allowed"
            )
    if record.before >= 0 and tally.judged >= LEAST_JUDGED:
        now_right = tally.right / tally.judged
        luck = ERRORS * np.sqrt(record.before * (1 - record.before) / tally.judged)
        if now_right < record.before - gates.fall / PER_MILLE - luck:
            return Verdict(
                FAILED,
                f"of {tally.judged} pictures {100 * now_right:.0f} % were right before being told,"
                f" {100 * record.before:.0f} % were expected",
            )
    is_late = now is not None and now - record.since >= 60 * settings.minutes
    if (
        is_late and tally.predictions + tally.judged >= settings.predictions
    ):  # a lesson is answered first, too
        return Verdict(PASSED)
    return Verdict("")


class Watch:
    """The watchdog of the release that lies under a hash."""

    def __init__(self, folder: Path, staged: str) -> None:
        self._place, self._staged = records.place(folder) / WATCH, staged

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Mark that the release is asked in here: whoever dies or whose engine fails in here has crashed.

        Where the storage refuses the mark, nothing is counted: that is no reason not to answer.
        """
        mark = self._begin()
        try:
            yield
        except EngineError:
            self._end(mark, crashes=1)
            raise
        except BaseException:
            self._end(mark)
            raise
        self._end(mark)

    @contextlib.contextmanager
    def answering(self, latency_us: "list[int]") -> Iterator[None]:
        """Guard one answer, and count it; its latency is put into the list meanwhile."""
        mark = self._begin()
        try:
            yield
        except EngineError:
            self._end(mark, crashes=1)
            raise
        except BaseException:
            self._end(mark)
            raise
        self._end(mark, predictions=1, latencies=tuple(latency_us))

    def judged(self, count: int, right: int) -> None:
        """Count answers given before learning."""
        if count:
            self._end(None, judged=count, right=right)

    def tally(self) -> Tally:
        """Return what was counted; who has died meanwhile is counted first.

        Raises:
            StoreError: the storage refuses.
        """
        if not self._place.is_dir():
            return Tally(self._staged)
        with guarded("watching the release"), self._locked():
            records.tidy(self._place)
            found, dead = self._read(), self._dead()
            if dead:
                found = found._replace(crashes=found.crashes + len(dead))
                self._write(found)
                for path in dead:
                    path.unlink()
            return found

    def _begin(self) -> tuple[Path, int] | None:
        with contextlib.suppress(OSError), self._locked():
            path = self._place / f"{MARK}{secrets.token_hex(6)}"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                sync_folder(self._place)
            except OSError:
                path.unlink()  # or the storage's fault would count as a crash
                os.close(descriptor)
                raise
            return path, descriptor
        return None

    def _end(self, mark: tuple[Path, int] | None, **more: Any) -> None:
        if mark is not None:
            with contextlib.suppress(OSError):
                mark[0].unlink()
        if more:
            with contextlib.suppress(OSError, StoreError), self._locked():
                self._write(_plus(self._read(), **more))
        if mark is not None:
            os.close(mark[1])

    def _dead(self) -> list[Path]:
        """Return the marks whose process is no more; the kernel has given their locks back."""
        return [path for path in self._place.glob(f"{MARK}*") if _is_free(path)]

    def _read(self) -> Tally:
        try:
            found = json.loads((self._place / TALLY).read_bytes())
            tally = Tally(**{**found, "latencies": tuple(found["latencies"])})
        except (OSError, ValueError, TypeError, KeyError):
            return Tally(self._staged)
        return tally if tally.staged == self._staged else Tally(self._staged)

    def _write(self, tally: Tally) -> None:
        install.write_atomically(self._place / TALLY, json.dumps(tally._asdict()).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._place.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._place / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _plus(tally: Tally, **more: Any) -> Tally:
    """Add counts to a tally; of latencies the last ones stay."""
    latencies = (*tally.latencies, *more.pop("latencies", ()))[-LATENCIES:]
    sums = {name: getattr(tally, name) + value for name, value in more.items()}
    return tally._replace(latencies=latencies, **sums)


def _is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def settle(folder: Path, settings: InstallationSettings) -> None:
    """Undo the release on probation if it has failed, before anybody opens it; else nothing.

    Where another process works, or the storage refuses, it stays for now.
    """
    current = install.read_current(folder)
    if current.fallback is None or current.bundle is None:
        return
    record = records.read(folder)
    with contextlib.suppress(StoreError):
        if record.state == ROLLBACK:
            swapping.undo(folder, current.bundle)
        elif record.state == PROBATION:
            found = look(folder, record, settings, None)
            if found.event == FAILED:
                fail(folder, record, found.reason)


def look(folder: Path, record: Record, settings: InstallationSettings, now: float | None) -> Verdict:
    """Return the verdict on the release on probation."""
    release = read_release(folder, record.staged)
    gates = release.manifest.gates if release else Gates(0, 0, 0, 0, 0, 0)
    return verdict(Watch(folder, record.staged).tally(), record, gates, settings, now)


def fail(folder: Path, record: Record, reason: str) -> Record:
    """Undo a release, with the reason on record."""
    failed = advance(record, FAILED, reason=reason)
    swapping.undo(folder, record.staged, lambda: records.write(folder, failed))
    return failed
