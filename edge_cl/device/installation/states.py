"""The installation of a release as one table: in which state which event is legal, and what it leads to.

    idle -> check -> download -> verify -> staged -> shadow -> swap -> probation -> commit
                                    `---------`--------`--------`----------`------> rollback

A state is persisted before its action, and every action may be repeated: whoever finds a state takes its
action again. Commit and rollback are ends: a later release starts again from them, a rolled back one too
until it has failed too often. The form is that of `wire.round`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from edge_cl.errors import ReleaseError

IDLE, CHECK, DOWNLOAD, VERIFY, STAGED, SHADOW, SWAP, PROBATION, COMMIT, ROLLBACK = (
    "idle",
    "check",
    "download",
    "verify",
    "staged",
    "shadow",
    "swap",
    "probation",
    "commit",
    "rollback",
)
STATES = (IDLE, CHECK, DOWNLOAD, VERIFY, STAGED, SHADOW, SWAP, PROBATION, COMMIT, ROLLBACK)
RESTING = (IDLE, CHECK, DOWNLOAD, COMMIT, ROLLBACK)  # nothing of a release is under way here

ASKED, NOTHING, OFFERED, CUT, FETCHED = "asked", "nothing", "offered", "cut", "fetched"
VERIFIED, STORED, ACCEPTED, SWAPPED, PASSED, FAILED = (
    "verified",
    "stored",
    "accepted",
    "swapped",
    "passed",
    "failed",
)
EVENTS = (ASKED, NOTHING, OFFERED, CUT, FETCHED, VERIFIED, STORED, ACCEPTED, SWAPPED, PASSED, FAILED)

_FROM_REST = {ASKED: CHECK, OFFERED: DOWNLOAD, FETCHED: VERIFY}
NEXT: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        IDLE: _FROM_REST,
        CHECK: {**_FROM_REST, NOTHING: IDLE, CUT: IDLE},
        DOWNLOAD: {**_FROM_REST, NOTHING: IDLE, CUT: DOWNLOAD},  # what came of the file stays: it goes on
        VERIFY: {VERIFIED: STAGED, FAILED: ROLLBACK},
        STAGED: {STORED: SHADOW, FAILED: ROLLBACK},
        SHADOW: {ACCEPTED: SWAP, FAILED: ROLLBACK},
        SWAP: {SWAPPED: PROBATION, FAILED: ROLLBACK},
        PROBATION: {PASSED: COMMIT, FAILED: ROLLBACK},
        COMMIT: _FROM_REST,
        ROLLBACK: _FROM_REST,
    }
)

FAILURES = 3  # times that a release is tried before it is left alone
DEATHS = 3  # times that the program may die at one and the same action of it


class Record(NamedTuple):
    """What is persisted of an installation.

    Attributes:
        state: one of STATES.
        bundle: number of the release that is, or was last, tried; 0: none.
        manifest: hash of its manifest.
        file: where it was fetched to.
        taken: the newest statistics of this device that its head has; None: none.
        staged: hash under which its files lie in the state folder; "" before that, and once it is undone.
        old: hash of the bundle that ran before it; "" before the swap, and once that is removed.
        begun: times that the state's action was begun and not ended.
        failures: of this release.
        reason: why it was rolled back, for a person; "" otherwise.
        since: when it was swapped in, seconds since 1970; 0: it was not.
        before: share of right answers before learning that is expected of it; -1: unknown.
        retaught: {class: what it was taught again from}, of the last swap to another feature space.
        facts: what was measured in the shadow.
    """

    state: str = IDLE
    bundle: int = 0
    manifest: str = ""
    file: str = ""
    taken: str | None = None
    staged: str = ""
    old: str = ""
    begun: int = 0
    failures: int = 0
    reason: str = ""
    since: int = 0
    before: float = -1.0
    retaught: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    facts: Mapping[str, Any] = MappingProxyType({})


def advance(record: Record, event: str, **facts: Any) -> Record:
    """Return the record after an event, with what is known since.

    Raises:
        ValueError: the event is not legal in this state.
    """
    moves = NEXT[record.state]
    if event not in moves:
        raise ValueError(f"{event} is out of place in an installation that is at {record.state}")
    if event == FAILED:
        facts["failures"] = record.failures + 1
    return record._replace(state=moves[event], begun=0, **facts)


def considered(record: Record, bundle: int, running: int, **facts: Any) -> Record:
    """Return the record that takes up a release that was fetched.

    Raises:
        ReleaseError: it may not be installed: another one is under way, it is not newer than what runs or was
            tried, or has failed too often.
    """
    if record.state not in RESTING:
        raise ReleaseError(f"bundle {record.bundle} is still at {record.state}: sync again later")
    if bundle <= running:
        raise ReleaseError(f"bundle {bundle} is not newer than {running}, which runs: left")
    if bundle < record.bundle:
        raise ReleaseError(f"bundle {bundle} is older than {record.bundle}, which was tried here: left")
    failures = record.failures if bundle == record.bundle else 0
    if failures >= FAILURES:
        raise ReleaseError(
            f"bundle {bundle} has failed {failures} times here ({record.reason}): a newer one is waited for"
        )
    return advance(record, FETCHED, **{**_UNKNOWN, **facts, "bundle": bundle, "failures": failures})


_UNKNOWN = {
    name: value
    for name, value in Record._field_defaults.items()
    if name not in ("state", "bundle", "failures", "begun")
}
