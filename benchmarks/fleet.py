"""What a fleet knows after one round: two devices of different classes, and one that means ill.

Claims: after one round, a retraining and another round, two devices that were taught disjoint halves of the
classes answer, on all classes, at most 1 point worse than one device that was taught everything, when they
send features; at most 2 points worse with statistics alone. A device that swaps its labels, or scales its
features, among five moves the fleet's accuracy by less than 1 point, and is named.

Method: a device is a learner that was taught with four views, sample by sample. What it tells goes through
the wire: a `Statistics` message as fine as `increment.fineness` lets it be, and `Features` of the samples
that it remembers. The host has pictures of nobody: its release before knows no class. It sifts, merges and
trains by the rules of `host_trainer.retraining` and packs a bundle; each device goes on under it as
`device.installation` makes it, and both are asked about the test pictures of all classes.
The poisoned device is one of five that share all classes at random, with as many samples as the others:
`swapped` calls every class by the next one's name, `scaled` tells statistics of features three times as long,
`bold` counts nine times as many samples besides, so that no sum is too long. The fleet without it is what its
accuracy is held against. The host judges by half of the test pictures; accuracy is of the other half.

Expected time: 25 minutes on two cores, once features are cached.

    python benchmarks/fleet.py [--seeds N] [--sets NAME ...] [--cache DIR] [--write]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ledger
import numpy as np
import photographs
from ledger import Row
from numpy.typing import NDArray

from edge_cl.evaluation.protocols import Samples as Pictures
from edge_cl.learning import increment, named
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics, empty_statistics
from edge_cl.learning.succession import Exemplars, succeed
from edge_cl.sample import FeatureSpace
from edge_cl.wire import bundle
from edge_cl.wire.codec import canonical, content_id, encode
from edge_cl.wire.messages import MAX_SAMPLES, Features, Message, narrowest
from edge_cl.wire.messages import Statistics as Told
from edge_cl.wire.release import Facts
from edge_cl.wire.tensors import pack
from host_trainer.retraining import assembly, heads
from host_trainer.retraining.assembly import Budgets, Gates, Ingredients, Input, Label
from host_trainer.retraining.contents import Received
from host_trainer.retraining.heads import HeadConfig
from host_trainer.retraining.intake import Known, Sound, sifted, without
from host_trainer.retraining.merging import merged
from host_trainer.retraining.samples import Samples, joined, nothing, statistics_of
from host_trainer.retraining.suspicion import suspicion
from host_trainer.retraining.told import taken_in

SETS = ("trashnet", "packages")
FIVE = 5
BATCH = 64  # lessons between two consolidations
CONFIG = HeadConfig(LearnerConfig())
VIEWS = CONFIG.learner.views
INPUT = Input(224, 224, -1.0, 1.0, "squash", True)
BACKBONE = b"\0\0\0\0TFL3" + bytes(64)  # nobody looks into it here: features come from the cache
LEVELS = {"features": 0.01, "statistics": 0.02}
CAP = 0.5


class Taught(NamedTuple):
    """A device, and the learner that was taught."""

    name: str
    learner: EdgeLearner


class Outcome(NamedTuple):
    """What a fleet came to: accuracy of what devices answer, who was named, and bytes up by device."""

    accuracy: float
    suspects: dict[str, str]
    bytes_up: dict[str, int]


def samples_of(pictures: Pictures, chosen: NDArray[np.intp], device: str) -> Samples:
    """Return some pictures as the samples of a device, in the order given."""
    labels = tuple(pictures.labels[i] for i in chosen)
    numbers = np.arange(1, len(chosen) + 1, dtype=np.int64)
    return Samples(pictures.features[chosen], labels, (device,) * len(chosen), numbers)


def taught(space: FeatureSpace, samples: Samples, name: str) -> Taught:
    """Teach a device sample by sample, as a person would."""
    learner = EdgeLearner(space, CONFIG.learner)
    for at in range(0, len(samples), BATCH):
        part = samples.at(np.arange(at, min(at + BATCH, len(samples))))
        learner.learn_many(part.features, part.labels)
        learner.consolidate()
    learner.settle()
    return Taught(name, learner)


def told(name: str, own: Named, space: FeatureSpace, is_open: bool) -> Told:
    """Return a device's first statistics message."""
    rank, factor = increment.fineness(
        space.size, int(own.statistics.counts.sum()) // SAMPLE_WEIGHT, len(own.labels), is_open
    )
    nothing_yet = empty_statistics(space.size, len(own.labels))
    grown = increment.compress(own.statistics, nothing_yet, rank, factor=factor)
    sums = grown.sums.astype(narrowest(grown.sums))
    return Told(
        *(name, 1, None, space.id, 0, own.labels, grown.counts, sums, grown.residue),
        *(grown.factors, grown.weights, grown.spread, grown.unit, 0, np.zeros(0, np.int64)),
    )


def features(name: str, samples: Samples, space: FeatureSpace) -> list[Message]:
    """Return a device's samples as messages."""
    found: list[Message] = []
    for at in range(0, len(samples), MAX_SAMPLES):
        part = samples.at(np.arange(at, min(at + MAX_SAMPLES, len(samples))))
        labels = tuple(dict.fromkeys(part.labels))
        numbers = np.array([labels.index(label) for label in part.labels], np.int32)
        found.append(Features(name, space.id, 0, labels, part.numbers, numbers, part.features))
    return found


def memory(device: Taught) -> Samples:
    """Return what a device remembers and does not suspect, in the order of its numbers."""
    buffer = device.learner.buffer
    slots = buffer.filled[~buffer.slots.suspect[buffer.filled]]
    slots = slots[np.argsort(buffer.slots.sample[slots])]
    labels = tuple(device.learner.labels[number] for number in buffer.slots.number[slots])
    return Samples(buffer.features[slots], labels, (device.name,) * len(slots), buffer.slots.sample[slots])


def received(name: str, messages: Sequence[Message]) -> list[Received]:
    """Return messages as the host holds them."""
    return [
        Received(name, content_id(each), type(each).__name__.lower(), canonical(each)) for each in messages
    ]


def next_release(
    contents: Sequence[Received], space: FeatureSpace, host: Sequence[Samples]
) -> tuple[bytes, dict[str, str]]:
    """Return the bundle that the host makes of contents, and who is not believed."""
    found = sifted(contents, Known({}, nothing(space, VIEWS)), space, VIEWS, (), lambda digest, data: None)
    host_knows = [known_of(each, space) for each in host]
    seen = joined([found.samples, *host]) if host else found.samples
    findings = suspicion(host_knows, list(found.told.values()), seen, space)
    suspects = {device: each.reason for device, each in findings.items() if each.reason}
    suspects |= {device: reason for (device, _), reason in found.aside.items()}
    sound: Sound = without(found, suspects)
    together = merged(named.nothing(space.size), list(sound.told.values()), (), CAP)
    learned_from = heads.rehearsed(
        named.nothing(space.size), list(sound.told.values()), together.shares, sound.samples,
        together.known.labels, space.zero_point,
    )  # fmt: skip
    head = heads.made(space, CONFIG, together.known, learned_from, sound.samples, sound.fresh)
    pixels = np.zeros((1, INPUT.height, INPUT.width, 3), np.uint8)
    answers = np.zeros((1, space.size), space.dtype)
    facts = {"sha256": "0", "kernels": "0", "space": space.id}
    golden = pack({"inputs": pixels, "outputs": answers}, facts)
    ingredients = Ingredients(head.learner, BACKBONE, golden, sound.samples, INPUT)
    label = Label("fleet", Facts(1), 0, Gates(0, 0, 0, 0, 0, 0), "benchmark")
    return assembly.whole(ingredients, label, Budgets()), suspects


def known_of(samples: Samples, space: FeatureSpace) -> Named:
    """Return what the host knows of its own pictures."""
    labels = tuple(dict.fromkeys(samples.labels))
    return Named(labels, statistics_of(samples, labels, space.zero_point))


def accuracy(learner: EdgeLearner, asked: Samples) -> float:
    """Return the share of whole pictures answered right."""
    return heads.accuracy(learner, asked)


def halves(photos: photographs.Photographs, seed: int) -> list[Samples]:
    """Return what two devices are taught: disjoint halves of the classes, shuffled."""
    rng = np.random.default_rng((seed, 1))
    labels = sorted(set(photos.train.labels))
    order = [labels[i] for i in rng.permutation(len(labels))]
    sides = [set(order[: len(order) // 2]), set(order[len(order) // 2 :])]
    found = []
    for number, side in enumerate(sides):
        mine = np.array([i for i, label in enumerate(photos.train.labels) if label in side])
        found.append(samples_of(photos.train, rng.permutation(mine), f"device-{number + 1}"))
    return found


def two_devices(photos: photographs.Photographs, devices: Sequence[Taught], level: str) -> Outcome:
    """Let two devices sync, the host retrain, and the devices sync again; the accuracy is their mean."""
    contents, sent, known = [], {}, {}
    for device in devices:
        own = Named(device.learner.labels, device.learner.own_statistics())
        messages: list[Message] = [told(device.name, own, photos.space, level == "features")]
        if level == "features":
            messages += features(device.name, memory(device), photos.space)
        contents += received(device.name, messages)
        sent[device.name] = sum(len(encode(each)) for each in messages)
        known[device.name] = (own, told_of(messages[0]))
    data, suspects = next_release(contents, photos.space, [])
    asked = everything(photos.test)
    right = [accuracy(installed(device, data, *known[device.name]), asked) for device in devices]
    return Outcome(float(np.mean(right)), suspects, sent)


def told_of(message: Message) -> Named:
    """Return what a device keeps as told after its first message."""
    assert isinstance(message, Told)
    found = taken_in(None, message, content_id(message), ())
    return Named(found.labels, found.statistics())


def installed(device: Taught, data: bytes, own: Named, before: Named) -> EdgeLearner:
    """Return the learner that goes on under a bundle, as `device.installation` makes it."""
    found = bundle.unpack(data)
    manifest, new = assembly.opened(data, CONFIG.learner)
    shown = bundle.exemplars(found)
    assert shown is not None
    slots = device.learner.buffer.slots.sample
    kept = {int(slots[slot]): device.learner.buffer.features[slot] for slot in device.learner.buffer.filled}
    lent = Exemplars(shown.features, shown.numbers)
    learner = succeed(device.learner, new, own, before, kept, lent)
    learner.consolidate()
    return learner


def everything(pictures: Pictures) -> Samples:
    """Return all pictures, of nobody."""
    return samples_of(pictures, np.arange(len(pictures.labels)), "")


def one_device(photos: photographs.Photographs, seed: int) -> float:
    """Return the accuracy of one device that was taught everything, in one shuffled order."""
    order = np.random.default_rng((seed, 2)).permutation(len(photos.train.labels))
    learner = taught(photos.space, samples_of(photos.train, order, ""), "one").learner
    return accuracy(learner, everything(photos.test))


Poison = Callable[[Samples, FeatureSpace], list[Message]]


def honest(samples: Samples, space: FeatureSpace) -> list[Message]:
    """Tell what is so."""
    labels = tuple(dict.fromkeys(samples.labels))
    exact = statistics_of(samples, labels, space.zero_point)
    return [
        told(samples.devices[0], Named(labels, exact), space, True),
        *features(samples.devices[0], samples, space),
    ]


def swapped(samples: Samples, space: FeatureSpace) -> list[Message]:
    """Call every class by the next one's name."""
    labels = sorted(set(samples.labels))
    turned = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    lie = Samples(
        samples.features, tuple(turned[each] for each in samples.labels), samples.devices, samples.numbers
    )
    return honest(lie, space)


def scaled(samples: Samples, space: FeatureSpace) -> list[Message]:
    """Tell statistics of features three times as long."""
    return _of_length(samples, space, 3.0, 1)


def bold(samples: Samples, space: FeatureSpace) -> list[Message]:
    """Scale features, and count nine times as many samples: every sum is one that samples could have."""
    return _of_length(samples, space, 3.0, 9)


def _of_length(samples: Samples, space: FeatureSpace, factor: float, times: int) -> list[Message]:
    labels = tuple(dict.fromkeys(samples.labels))
    exact = statistics_of(samples, labels, space.zero_point)
    moment = np.rint(factor**2 * exact.moment)
    lie = Statistics(exact.counts * times, np.rint(factor * exact.sums), moment, 0)
    stretched = np.clip(
        space.zero_point + factor * (samples.features.astype(float) - space.zero_point),
        np.iinfo(space.dtype).min,
        np.iinfo(space.dtype).max,
    ).astype(space.dtype)
    sent = Samples(stretched, samples.labels, samples.devices, samples.numbers)
    return [
        told(samples.devices[0], Named(labels, lie), space, True),
        *features(samples.devices[0], sent, space),
    ]


def five_devices(photos: photographs.Photographs, seed: int, poison: Poison | None) -> Outcome:
    """Let five devices sync, the first of which means ill, or is left out where there is no poison."""
    rng = np.random.default_rng((seed, 3))
    owner = rng.integers(FIVE, size=len(photos.train.labels))
    asked = everything(photos.test)
    half = rng.random(len(asked)) < 0.5
    contents: list[Received] = []
    for number in range(FIVE):
        name = f"device-{number + 1}"
        samples = samples_of(photos.train, rng.permutation(np.flatnonzero(owner == number)), name)
        tell = honest if number else poison
        if tell is not None:
            contents += received(name, tell(samples, photos.space))
    data, suspects = next_release(contents, photos.space, [asked.at(half)])
    learner = assembly.opened(data, CONFIG.learner)[1]
    return Outcome(accuracy(learner, asked.at(~half)), suspects, {})


def rows_of(name: str, photos: photographs.Photographs, seeds: int) -> list[Row]:
    """Measure one set."""
    title = photographs.SETS[name].title
    alone = [one_device(photos, seed) for seed in range(seeds)]
    print(f"{title}: one device {np.mean(alone):.4f}", flush=True)
    lines = [Row(f"{title}: one device that was taught everything", f"{np.mean(alone):.3f}")]
    pairs = [
        [taught(photos.space, half, half.devices[0]) for half in halves(photos, seed)]
        for seed in range(seeds)
    ]
    for level, most in LEVELS.items():
        found = [two_devices(photos, devices, level) for devices in pairs]
        each = [one - other.accuracy for one, other in zip(alone, found, strict=True)]
        up = np.mean([size for one in found for size in one.bytes_up.values()]) / 1000
        print(f"{title}: {level} {np.mean([o.accuracy for o in found]):.4f} {np.round(each, 4)}", flush=True)
        lines.append(
            ledger.at_most(
                f"{title}: less two devices, {level} ({up:.0f} KB up each)",
                float(np.mean(each)),
                most,
                note=f" ({', '.join(f'{value:+.3f}' for value in each)})",
            )
        )
    without_it = [five_devices(photos, seed, None).accuracy for seed in range(seeds)]
    for poison in (swapped, scaled, bold):
        found = [five_devices(photos, seed, poison) for seed in range(seeds)]
        moved = [abs(one - other.accuracy) for one, other in zip(without_it, found, strict=True)]
        named_alone = sum(set(each.suspects) == {"device-1"} for each in found)
        print(f"{title}: {poison.__name__} moved {np.round(moved, 4)}, named {named_alone}", flush=True)
        lines.append(
            ledger.at_most(
                f"{title}: a poisoned device among {FIVE}, {poison.__name__}, moves the accuracy by",
                max(moved),
                0.01,
                note=f" (named, and nobody else, {named_alone} of {seeds} times)",
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="splits of the classes (%(default)s)"
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--write", action="store_true", help="put the rows into RESULTS.md")
    options = parser.parse_args()
    lines: list[Row] = []
    for name in options.sets:
        lines += rows_of(name, photographs.load(name, options.cache), options.seeds)
    ledger.show("Fleet", lines)
    if options.write:
        ledger.write("fleet", "python benchmarks/fleet.py", ledger.rows_table(lines))


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
