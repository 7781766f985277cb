"""What a sync round costs in bytes, and what the host loses by hearing it in few.

Claims: a statistics round that brings no samples stays under 2 KB up, 1 KB of them statistics, and under 4 KB
down, one that opens a context of new classes under about 30 KB up; the merged base then answers, on all
classes, at most 2 points worse than the exact merge. A new head travels in under 60 KB, and a whole bundle
with the backbone that ships in under 1.2 MB.

Method: two devices are taught disjoint halves of a set's classes in five parts. After each part both send a
`Statistics` message of BUDGET_BYTES for the scatter, then four more without new samples, of one direction
each; the host adds what it was told. Bytes are those of all messages of a round as they go over the line.
`exact` adds the devices' own statistics. Both answer with the shrinkage in SHRINKAGE. "Taught at once" is the
first round of a device that learned everything before it first spoke: the worst case. The whole bundle is
made of half of what is taught, the head that follows it of all.
Exemplars: a base made of them alone, chosen by herding and at random, against one made of all.

Expected time: 3 minutes on one core, once features are cached; the first time some minutes more.

    python benchmarks/sync.py [--cache DIR] [--write]
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import ledger
import numpy as np
import photographs
from ledger import Row
from numpy.typing import NDArray

from edge_cl.device.shipped import named_or_shipped
from edge_cl.evaluation.protocols import Samples
from edge_cl.learning import head, increment
from edge_cl.learning.base import Base
from edge_cl.learning.config import LearnerConfig
from edge_cl.learning.coreset import coreset
from edge_cl.learning.embedding import embed
from edge_cl.learning.learner import EdgeLearner
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics, empty_statistics, merge
from edge_cl.sample import FeatureSpace
from edge_cl.wire import bundle, parts
from edge_cl.wire.codec import canonical, content_id, encode
from edge_cl.wire.messages import (
    Acknowledgement,
    Chunk,
    Commit,
    Content,
    Greet,
    Message,
    Offer,
    Progress,
    Receipt,
    Status,
    Welcome,
    narrowest,
)
from edge_cl.wire.messages import Statistics as Told

PARTS = 5  # of what a device is taught, a round after each
QUIET = 4  # rounds without new samples
BUDGET_BYTES = 22 << 10  # of the scatter, in a round with new samples
SHRINKAGE = 0.2
WHOLE_RANK, LEAN_RANK = 192, 32  # directions of a head from nothing, and of one that goes on from its parent
GOLDEN_PICTURES = 8
EXEMPLARS = 20  # a class
HASH = "0" * 64
KILO = 1000.0


class Asked(NamedTuple):
    """Embeddings (N, D) of whole pictures and the class (N,) of each."""

    rows: NDArray[np.float64]
    numbers: NDArray[np.intp]


class Found(NamedTuple):
    """What the rounds of a set cost and gave.

    Attributes:
        first, quiet: bytes up of a round that opens a context, and of one without samples.
        alone: bytes of the statistics that go up in the latter, without the messages around them.
        down: bytes down.
        exact, told, at_once: accuracy of the host after all rounds, and where everything came in one.
        early: accuracy told less exact after each part.
        churn: share of answers that differ from the exact ones.
    """

    first: int
    quiet: int
    alone: int
    down: int
    exact: float
    told: float
    at_once: float
    early: list[float]
    churn: float


def statistics_of(rows: NDArray, numbers: NDArray, classes: int) -> Statistics:
    """Return the statistics of samples (N, V, D): those that a base taught one by one has, made at once."""
    weight = SAMPLE_WEIGHT // rows.shape[1]
    counts = SAMPLE_WEIGHT * np.bincount(numbers, minlength=classes)
    sums = np.stack([weight * rows[numbers == number].sum(axis=(0, 1)) for number in range(classes)])
    flat = rows.reshape(-1, rows.shape[-1])
    return Statistics(counts, sums, weight * (flat.T @ flat), 0)


def answers(statistics: Statistics, rows: NDArray) -> NDArray[np.intp]:
    """Return the classes (N,) that a base of these statistics answers with."""
    base = Base(rows.shape[-1])
    base.restore(*increment.lifted(statistics), SHRINKAGE, 1.0, 0)
    base.refresh(SHRINKAGE)
    return base.scores(rows).argmax(axis=1)


def spoken(number: int, labels: tuple[str, ...], told: increment.Increment, error: float) -> Told:
    """Return the message of an increment: of its classes those that changed."""
    changed = told.counts != 0
    sums = told.sums[changed]
    return Told(
        *("device-1", number, HASH if number else None, "0" * 16, 0),
        *(
            tuple(label for label, is_new in zip(labels, changed, strict=True) if is_new),
            told.counts[changed],
        ),
        *(sums.astype(narrowest(sums)), told.residue, told.factors, told.weights, told.spread, told.unit),
        min(1000, round(1000 * error)),
        np.zeros(0, np.int64),
    )


def cost(number: int, contents: list[Message]) -> tuple[int, int]:
    """Return the bytes up and down of a whole round that sends these contents, TLS and HTTP aside."""
    data = [canonical(each) for each in contents]
    names = [content_id(each) for each in contents]
    announced = tuple(Content(n, "statistics", len(d)) for n, d in zip(names, data, strict=True))
    up: list[Message] = [
        Greet("device-1", number, "0.1.0", ("any",), 7, "0" * 16, 0, "statistics", HASH, announced),
        *(Chunk(n, 0, len(d), d) for n, d in zip(names, data, strict=True)),
        Commit("device-1", number, tuple(names)),
        Status("device-1", number, 7, "idle", 0, "", 900, 1234, 5, 12_000),
    ]
    down: list[Message] = [
        Welcome(number, 0, "statistics", HASH, tuple(Progress(n, 0) for n in names), 1 << 20),
        *(Receipt(n, len(d), True) for n, d in zip(names, data, strict=True)),
        Offer(number, 7, HASH, 1_000_000, HASH),
        Acknowledgement(number, 3600),
    ]
    return sum(len(encode(each)) for each in up), sum(len(encode(each)) for each in down)


def rounds(labels: tuple[str, ...], rows: NDArray, numbers: NDArray, asked: Asked) -> Found:
    """Let two devices tell what they learn, and hold the host against the exact merge."""
    classes, size = len(labels), rows.shape[-1]
    shuffled = np.random.default_rng(0).permutation(len(numbers))
    devices = [shuffled[(numbers[shuffled] < classes // 2) == side] for side in (True, False)]
    rank, told = increment.affordable_rank(BUDGET_BYTES, size), [empty_statistics(size, classes)] * 2
    first, quiet, alone, down, early = [], [], [], [], []
    for number in range(PARTS + QUIET):
        exact = []
        for device, owned in enumerate(devices):
            taught = owned[: len(owned) * min(number + 1, PARTS) // PARTS]
            now = statistics_of(rows[taught], numbers[taught], classes)
            is_quiet = number >= PARTS
            factor = increment.QUIET_FACTOR if is_quiet else increment.FACTOR
            grown = increment.compress(now, told[device], 1 if is_quiet else rank, is_quiet, factor)
            told[device] = increment.advance(told[device], grown)
            message = spoken(number, labels, grown, increment.untold(now, told[device]))
            bytes_up, bytes_down = cost(number, [message])
            (quiet if is_quiet else first).append(bytes_up)
            if is_quiet:
                alone.append(len(encode(message)))
            down.append(bytes_down)
            exact.append(now)
        right = [answers(merge(*both), asked.rows) for both in (exact, told)]
        early.append(float(np.mean(right[1] == asked.numbers) - np.mean(right[0] == asked.numbers)))
    nothing = empty_statistics(size, classes)
    once = [increment.advance(nothing, increment.compress(now, nothing, rank)) for now in exact]
    return Found(
        *(max(first), max(quiet), max(alone), max(down)),
        *(float(np.mean(each == asked.numbers)) for each in right),
        float(np.mean(answers(merge(*once), asked.rows) == asked.numbers)),
        early[:PARTS],
        float(np.mean(right[0] != right[1])),
    )


def exemplar_accuracy(rows: NDArray, numbers: NDArray, asked: Asked, chosen: NDArray) -> float:
    """Return the accuracy of a base that was taught the chosen samples only."""
    found = statistics_of(rows[chosen], numbers[chosen], int(numbers.max()) + 1)
    return float(np.mean(answers(found, asked.rows) == asked.numbers))


def numbered(samples: Samples, labels: tuple[str, ...]) -> NDArray[np.intp]:
    """Return the class (N,) of each sample."""
    return np.array([labels.index(label) for label in samples.labels])


def rows_of(name: str, found: photographs.Photographs) -> list[Row]:
    """Measure the rounds of one set."""
    labels = tuple(sorted(set(found.train.labels)))
    rows = embed(found.train.features, found.space.zero_point)
    numbers = numbered(found.train, labels)
    asked = Asked(embed(found.test.features[:, 0], found.space.zero_point), numbered(found.test, labels))
    got = rounds(labels, rows, numbers, asked)
    lines = [
        Row(
            f"{name}: a round with samples of {len(labels) // 2} new classes, up",
            f"{got.first / KILO:.1f} KB",
        ),
        ledger.at_most(f"{name}: a round without samples, up", got.quiet / KILO, 2, "KB", 2),
        ledger.at_most(f"{name}: ... of them statistics", got.alone / KILO, 1, "KB", 2),
        ledger.at_most(f"{name}: any round, down", got.down / KILO, 4, "KB", 2),
        ledger.at_most(
            f"{name}: exact merge less what was told",
            got.exact - got.told,
            0.02,
            note=f" ({got.exact:.3f} exact)",
        ),
        Row(f"{name}: the same, taught at once", f"{got.exact - got.at_once:.3f}"),
        Row(f"{name}: told less exact after each part", ", ".join(f"{each:+.3f}" for each in got.early)),
        Row(f"{name}: answers that differ in the end", f"{got.churn:.3f}"),
    ]
    for count in (5, EXEMPLARS):
        herded = exemplar_accuracy(rows, numbers, asked, coreset(rows.mean(axis=1), numbers, count))
        drawn = np.mean(
            [
                exemplar_accuracy(rows, numbers, asked, random_choice(numbers, count, seed))
                for seed in range(5)
            ]
        )
        lines.append(
            Row(
                f"{name}: a base of {count} exemplars a class",
                f"{herded:.3f} by herding, {drawn:.3f} at random",
            )
        )
    return lines


def random_choice(numbers: NDArray, count: int, seed: int) -> NDArray[np.intp]:
    """Return `count` samples of each class at random."""
    order = np.random.default_rng(seed).permutation(len(numbers))
    return np.concatenate([order[numbers[order] == number][:count] for number in np.unique(numbers)])


def bundle_rows(found: photographs.Photographs, network: Path) -> list[Row]:
    """Make a bundle of half of what is taught and a new head of all, weigh both, and open them again."""
    learner, order = (
        EdgeLearner(found.space, LearnerConfig()),
        np.random.default_rng(0).permutation(len(found.train.labels)),
    )
    half = len(order) // 2
    teach(learner, found.train, order[:half])
    files = bundle_files(learner, found, network)
    whole = bundle.pack(manifest_of(1, learner, found.space, files, files), files)
    first = bundle.unpack(whole)
    known = head.to_statistics(bundle.head(first))
    lines = [
        ledger.at_most(
            "shipped backbone, TrashNet: a whole bundle, down",
            len(whole) / KILO**2,
            1.2,
            "MB",
            note=f" ({len(files['backbone.tflite']) / KILO**2:.2f} of it backbone)",
        ),
        loss("a learner less the one made of its whole head", learner, first, found.test, None),
    ]
    teach(learner, found.train, order[half:])
    files[bundle.HEAD] = parts.write(
        head.of_learner(learner, LEAN_RANK, (1, known)), first.manifest.lengths, parts.check_head
    )
    carried = {bundle.HEAD: files[bundle.HEAD]}
    lean = bundle.pack(manifest_of(2, learner, found.space, files, carried), carried)
    second = bundle.unpack(lean)
    return [
        *lines,
        ledger.at_most("shipped backbone, TrashNet: a new head, down", len(lean) / KILO, 60, "KB", 1),
        loss("the same learner later, less the one made of its new head", learner, second, found.test, known),
    ]


def teach(learner: EdgeLearner, samples: Samples, order: NDArray[np.intp]) -> None:
    """Teach samples in an order, consolidating now and then."""
    for begin in range(0, len(order), 64):
        chosen = order[begin : begin + 64]
        learner.learn_many(samples.features[chosen], [samples.labels[i] for i in chosen])
        learner.consolidate()
    learner.settle()


def loss(
    words: str, learner: EdgeLearner, opened: bundle.Bundle, asked: Samples, parent: Statistics | None
) -> Row:
    """Compare a learner with the one made of its head."""
    tensors, labels = bundle.head(opened), opened.manifest.labels
    other = head.to_learner(learner.space, LearnerConfig(), labels, tensors, parent)
    right = [accuracy(each, asked) for each in (learner, other)]
    return Row(words, f"{right[0] - right[1]:+.3f} ({right[0]:.3f} at home)")


def bundle_files(learner: EdgeLearner, found: photographs.Photographs, network: Path) -> dict[str, bytes]:
    """Return the parts; the golden pictures are of noise, which packs no better than photographs do."""
    lengths = parts.Lengths(found.space.size, len(learner.labels), found.space.dtype, (96, 96))
    slots = learner.buffer.filled
    numbers = learner.buffer.slots.number[slots]
    rows = embed(learner.buffer.features[slots], found.space.zero_point).mean(axis=1)
    chosen = coreset(rows, numbers, EXEMPLARS)
    exemplars = {"features": learner.buffer.features[slots[chosen]][:, :1], "numbers": numbers[chosen]}
    pixels = np.random.default_rng(0).integers(0, 256, (GOLDEN_PICTURES, 96, 96, 3), np.uint8)
    golden = {"inputs": pixels, "outputs": found.test.features[:GOLDEN_PICTURES, 0]}
    facts = dict.fromkeys(parts.GOLDEN_FACTS, HASH)
    return {
        "backbone.tflite": network.read_bytes(),
        bundle.HEAD: parts.write(head.of_learner(learner, WHOLE_RANK), lengths, parts.check_head),
        bundle.GOLDEN: parts.write(golden, lengths, parts.check_golden, facts),
        bundle.EXEMPLARS: parts.write(exemplars, lengths, parts.check_exemplars),
    }


def manifest_of(
    number: int, learner: EdgeLearner, space: FeatureSpace, files: dict[str, bytes], carried: dict[str, bytes]
) -> bundle.Manifest:
    """Return the manifest of a bundle that carries some of the files."""
    return bundle.Manifest(
        *(number, number - 1, "waste", ("any",), "0.1.0", "", bundle.Space(*space), learner.labels, 0),
        bundle.Input(96, 96, -1.0, 1.0, "squash", True),
        bundle.Gates(700, 10, 4, 990, 0, 0),
        tuple(bundle.described(name, data, name in carried) for name, data in files.items()),
        "benchmark",
    )


def accuracy(learner: EdgeLearner, asked: Samples) -> float:
    """Return the share of whole pictures answered right."""
    found = learner.predict_many(asked.features[:, :1])
    return float(np.mean([answer.best == label for answer, label in zip(found, asked.labels, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, help="folder of the feature cache")
    parser.add_argument("--write", action="store_true", help="put the rows into RESULTS.md")
    options = parser.parse_args()
    lines: list[Row] = []
    for name in ("trashnet", "packages"):
        lines += rows_of(photographs.SETS[name].title, photographs.load(name, options.cache))
    network = named_or_shipped(None)
    with photographs.unpacked("trashnet") as folder:
        cache = options.cache or photographs.default_cache().parent
        shipped = photographs.embed(folder, cache / photographs.default_cache().name, network)
    lines += rows_of("TrashNet, shipped backbone", shipped)
    lines += bundle_rows(shipped, network)
    ledger.show("Sync", lines)
    if options.write:
        ledger.write("sync", "python benchmarks/sync.py", ledger.rows_table(lines))


if __name__ == "__main__":
    main()
