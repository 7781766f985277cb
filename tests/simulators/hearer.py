"""A host in memory that keeps what it is told, as the real one does, and a line to it that fails as told."""

from collections.abc import Iterable

import numpy as np
from simulators.line import Fault, Host

from edge_cl.device.sync.line import Traffic
from edge_cl.errors import TransportError
from edge_cl.wire.codec import decode, encode
from edge_cl.wire.labels import Edits, followed, later
from edge_cl.wire.messages import (
    Commit,
    Content,
    Features,
    Greet,
    Images,
    Message,
    Offer,
    Progress,
    Renaming,
    Statistics,
    Welcome,
)
from host_trainer.retraining.told import Told, impossible, moved, taken_in

NOW = 1_800_000_000


class Hearer(Host):
    """Adds up what it is told.

    Attributes:
        edits: of the label registry; a test may extend them.
        level, quota: of the welcome.
        told: what the statistics come to.
        samples: {level: {number: label}} of what it holds of samples.
        pictures: {number: file}.
        faults: why what was told cannot be true, as the retraining would say.
    """

    def __init__(self) -> None:
        super().__init__(bundle=0)
        self.edits: Edits = ()
        self.level, self.quota = "images", 1 << 30
        self.told: Told | None = None
        self.samples: dict[str, dict[int, str]] = {"features": {}, "images": {}}
        self.pictures: dict[int, bytes] = {}
        self.faults: list[str] = []

    @property
    def registry(self) -> int:
        """Newest version."""
        return self.edits[-1].version if self.edits else 0

    def forget_device(self) -> None:
        """Lose all that was told, as from an old backup."""
        self.told, self.held, self.counted = None, {}, []

    def now(self) -> Told | None:
        """Return what was told, classes called as they are now."""
        return None if self.told is None else moved(self.told, self.edits, self.registry)

    def called(self, level: str) -> dict[int, str]:
        """Return what it calls the samples it holds."""
        return self.samples[level]

    def rename(self, edits: Edits) -> None:
        """Extend the registry, and call what is held by the new names."""
        fresh = edits[len(self.edits) :]
        self.edits = edits
        for found in self.samples.values():
            for sample, label in found.items():
                found[sample] = followed(label, fresh, 0, "pi-1", sample)

    def _greet(self, greet: Greet) -> Welcome:
        held = {each.id: len(self.held.get(each.id, b"")) for each in greet.contents}
        missing = tuple(Progress(each.id, held[each.id]) for each in _lacking(greet.contents, held))
        last = self.told.contents[-1] if self.told and self.told.contents else None
        return Welcome(greet.round, self.registry, self.level, last, missing, self.quota)

    def _commit(self, commit: Commit) -> Offer:
        fresh = [name for name in commit.contents if name not in self.counted]
        offer = super()._commit(commit)
        messages = [(name, decode(self.held[name])) for name in fresh]
        spoken = [pair for pair in messages if isinstance(pair[1], Statistics)]
        for name, message in sorted(spoken, key=lambda pair: pair[1].number):
            self.told = taken_in(self.told, message, name, self.edits)
            reason = impossible(self.told)
            self.faults += [reason] if reason else []
            for sample in message.withdrawn.tolist():
                for found in (*self.samples.values(), self.pictures):
                    found.pop(sample, None)
        for _, message in messages:
            if isinstance(message, (Features, Images)):
                self._take_samples(message)
        return offer

    def _take_samples(self, message: Features | Images) -> None:
        level = "features" if isinstance(message, Features) else "images"
        for sample, number in zip(message.samples.tolist(), message.numbers.tolist(), strict=True):
            label = followed(message.labels[number], self.edits, message.registry, "pi-1", sample)
            self.samples[level][sample] = label
        if isinstance(message, Images):
            self.pictures |= dict(zip(message.samples.tolist(), message.files(), strict=True))


class Wire:
    """What a session takes for the line to a host; `faults` come one a question."""

    def __init__(self, host: Hearer, faults: Iterable[Fault] = (), now: int = NOW) -> None:
        self._host, self._faults, self._up, self._down = host, iter(faults), 0, 0
        self.now = self.heard = now
        self.asked: list[str] = []

    @property
    def traffic(self) -> Traffic:
        """Bytes so far."""
        return Traffic(self._up, self._down)

    def ask(self, message: Message) -> Message:
        """Carry a message, or lose it, or its answer."""
        data, fault = encode(message), next(self._faults, Fault.NONE)
        self._up += len(data)
        self.asked.append(type(message).__name__)
        if fault is Fault.LOST:
            raise TransportError("lost")
        reply = self._host.answer(data)
        if fault is Fault.TWICE:
            reply = self._host.answer(data)
        if fault is Fault.UNANSWERED:
            raise TransportError("not answered")
        self._down += len(reply)
        return decode(reply)

    def edits_after(self, version: int) -> Renaming:
        """Return a page of the registry."""
        return Renaming(later(self._host.edits, version))


def same(found: Told | None, counts: dict[str, int], sums: dict[str, np.ndarray]) -> bool:
    """Tell whether what was told is exactly these counts and sums, by class; classes of nothing aside."""
    heard = {} if found is None else dict(zip(found.labels, range(len(found.labels)), strict=True))
    mine = {label: n for label, n in counts.items() if n}
    theirs = {label: int(found.counts[at]) for label, at in heard.items() if found.counts[at]}
    return mine == theirs and all(np.array_equal(found.sums[heard[label]], sums[label]) for label in mine)


def _lacking(contents: tuple[Content, ...], held: dict[str, int]) -> list[Content]:
    return [each for each in contents if held[each.id] < each.size]
