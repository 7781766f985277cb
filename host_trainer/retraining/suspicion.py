"""Decides which devices contradict everybody else: their classes lie where others have other classes, their
features are longer than features are, or what they told is not what they sent.

A device's class means are held against those of the host and of the other devices, in the metric of the
spread that all share: agreement is 1 where they coincide, 0 where they say nothing, and below where labels
were swapped. A device is named only when the rest is sure of itself and chance cannot explain it; the worst
is named first and leaves, so that it cannot make others look wrong.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.learning.embedding import UNIT, embed
from edge_cl.learning.increment import between, places, union
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import SAMPLE_WEIGHT
from edge_cl.sample import FeatureSpace, label_key
from host_trainer.retraining.samples import Samples
from host_trainer.retraining.told import Told

LEAST_AGREEMENT = (
    0.6  # of the usual one; a share of labels drawn at random lowers it by that share (measured)
)
CERTAINTY = 3.0  # standard errors between what was found and that
LEAST_SAMPLES = 5  # of a class, of a device, to be held against others
VOICES = 2  # devices that know a class as well, where the host does not know it itself
LOUDEST = 100  # samples of a class by which a voice counts at most
SHRINKAGE = 0.3  # of the common spread
LONGEST = 2.0  # times the usual length of a feature, or its inverse
LEAST_COSINE = 0.8  # of what a device told of a class with what it sent of it

Floats = NDArray[np.float64]


class Finding(NamedTuple):
    """What was found of a device.

    Attributes:
        agreement: with all others; None where nobody could judge.
        error: its standard error.
        classes: {class: agreement of that class alone}.
        reason: why it is not believed; empty when it is.
    """

    agreement: float | None
    error: float
    classes: Mapping[str, float]
    reason: str = ""


class _Voice(NamedTuple):
    """Class means (C, D) in real units and how many samples (C,) they come from, on common labels."""

    counts: Floats
    means: Floats


def suspicion(
    host: Sequence[Named], told: Sequence[Told], samples: Samples, space: FeatureSpace
) -> dict[str, Finding]:
    """Hold devices against each other and against what the host knows; return what was found of each.

    Args:
        host: what nobody but the host supplied: its own pictures, and those it keeps to judge by.
        told: of each device.
        samples: of the devices and of the host.
        space: of the features.
    """
    findings = {each.device: Finding(None, 0.0, {}) for each in told}
    lengths = _lengths(samples, space)
    for each in told:
        reason = _stretched(each.device, lengths) or _two_stories(each, samples.of(each.device), space)
        findings[each.device] = findings[each.device]._replace(reason=reason)
    labels = _labels(host, told)
    if len(labels) < 2:
        return findings
    root, noise = _whitening(host, told)
    own = [_voice(each, labels, root) for each in host]
    voices = {each.device: _voice(Named(each.labels, each.statistics()), labels, root) for each in told}
    heard = {device: voice for device, voice in voices.items() if not findings[device].reason}
    while True:
        found = {
            device: _agreement(voice, own, [v for d, v in heard.items() if d != device], labels, noise)
            for device, voice in voices.items()
        }
        usual = [
            each.agreement for device, each in found.items() if device in heard and each.agreement is not None
        ]
        least = LEAST_AGREEMENT * max(1.0, float(np.median(usual)) if usual else 1.0)
        worst = min(
            (device for device in heard if _is_sure(found[device], least)),
            key=lambda device: found[device].agreement or 0.0,
            default=None,
        )
        if worst is None:
            break
        findings[worst] = found[worst]._replace(reason=_in_words(found[worst]))
        del heard[worst]
    return {
        device: found[device]._replace(reason=findings[device].reason)
        if not findings[device].classes
        else findings[device]
        for device in findings
    }


def _agreement(
    voice: _Voice, own: Sequence[_Voice], others: Sequence[_Voice], labels: Sequence[str], noise: float
) -> Finding:
    """Return how a device agrees with the host's voices and those of other devices."""
    loud = [np.minimum(each.counts, LOUDEST) for each in (*own, *others)]
    counts = np.sum(loud, axis=0) if loud else np.zeros(len(labels))
    speak = (
        np.sum([each.counts >= LEAST_SAMPLES for each in others], axis=0) if others else np.zeros(len(labels))
    )
    knows = np.sum([each.counts > 0 for each in own], axis=0) if own else np.zeros(len(labels))
    judged = (counts >= LEAST_SAMPLES) & ((knows > 0) | (speak >= VOICES))
    if judged.sum() < 2:
        return Finding(None, 0.0, {})
    total = np.sum([c[:, None] * v.means for c, v in zip(loud, (*own, *others), strict=True)], axis=0)
    places_of = total[judged] / counts[judged, None]
    centre = places_of.mean(axis=0)
    means, mine = places_of - centre, voice.counts[judged]
    squares = np.maximum(np.square(means).sum(axis=1) - noise / counts[judged], 0.0)
    can = (mine >= LEAST_SAMPLES) & (squares > 0)
    theirs = voice.means[judged] - centre
    if can.sum() > 1:  # another camera moves all classes alike, and is no lie
        theirs = theirs - (theirs - means)[can].mean(axis=0)
    along = (theirs * means).sum(axis=1)
    weight = float((np.minimum(mine, LOUDEST) * squares)[can].sum())
    if weight <= 0:
        return Finding(None, 0.0, {})
    agreement = float((np.minimum(mine, LOUDEST) * along)[can].sum()) / weight
    names = [label for label, is_judged in zip(labels, judged, strict=True) if is_judged]
    classes = {names[i]: float(along[i] / squares[i]) for i in np.flatnonzero(can)}
    return Finding(agreement, weight**-0.5, classes)


def _is_sure(finding: Finding, least: float) -> bool:
    return finding.agreement is not None and finding.agreement + CERTAINTY * finding.error < least


def _in_words(finding: Finding) -> str:
    worst = sorted(finding.classes, key=lambda label: finding.classes[label])[:3]
    return (
        f"its classes agree with those of all others by {finding.agreement:.2f}, where 1 is the same and 0"
        f" nothing alike; most apart: {', '.join(worst)}"
    )


def _labels(host: Sequence[Named], told: Sequence[Told]) -> tuple[str, ...]:
    labels: tuple[str, ...] = ()
    for names in [*(each.labels for each in host), *(each.labels for each in told)]:
        labels = union(labels, names)
    return labels


def _whitening(host: Sequence[Named], told: Sequence[Told]) -> tuple[Floats, float]:
    """Return (D, D) W with W W' about the inverse of the common covariance within classes.

    And the mean squared distance of a sample from its class's mean in this metric; a mean of n samples is an
    n-th of it longer than the true one.
    """
    scatter, weight = None, 0
    for found in (*(each.statistics for each in host), *(each.statistics() for each in told)):
        own = found.moment - between(found.counts, found.sums)
        scatter = own if scatter is None else scatter + own
        weight += int(found.counts.sum()) + found.residue
    assert scatter is not None  # noqa: S101 - there are classes
    covariance = scatter / (UNIT * UNIT * max(weight, 1))
    size = len(covariance)
    mean = max(float(np.trace(covariance)) / size, 1e-12)
    values, vectors = np.linalg.eigh(covariance)
    shrunk = np.maximum((1 - SHRINKAGE) * values + SHRINKAGE * mean, 1e-3 * mean)
    return vectors / np.sqrt(shrunk), float(np.maximum(values, 0.0) @ (1.0 / shrunk))


def _voice(named: Named, labels: Sequence[str], root: Floats) -> _Voice:
    where, counts = places(named.labels, labels), np.zeros(len(labels))
    means = np.zeros((len(labels), root.shape[1]))
    np.add.at(counts, where, named.statistics.counts / SAMPLE_WEIGHT)
    np.add.at(means, where, (named.statistics.sums / (UNIT * SAMPLE_WEIGHT)) @ root)
    return _Voice(counts, means / np.maximum(counts, 1e-9)[:, None])


def _lengths(samples: Samples, space: FeatureSpace) -> dict[str, dict[str, float]]:
    """Return {class: {device: median size of a feature value}}; classes differ much among themselves."""
    sizes = np.abs(samples.features[:, 0].astype(np.float64) - space.zero_point).mean(axis=1)
    found: dict[str, dict[str, list[float]]] = {}
    for label, device, size in zip(samples.labels, samples.devices, sizes.tolist(), strict=True):
        found.setdefault(label_key(label), {}).setdefault(device, []).append(size)
    return {
        label: {device: float(np.median(values)) for device, values in by_device.items()}
        for label, by_device in found.items()
    }


def _stretched(device: str, lengths: Mapping[str, Mapping[str, float]]) -> str:
    """Say that a device's features are longer or shorter than those of others, of the same classes."""
    ratios = []
    for by_device in lengths.values():
        others = [length for name, length in by_device.items() if name != device]
        if device in by_device and others:
            ratios.append(by_device[device] / max(float(np.median(others)), 1e-12))
    ratio = float(np.median(ratios)) if ratios else 1.0
    if 1 / LONGEST <= ratio <= LONGEST:
        return ""
    return f"its features are {ratio:.2f} times as long as those of all others"


def _two_stories(told: Told, samples: Samples, space: FeatureSpace) -> str:
    """Say of which class the device told something else than it sent; empty when of none."""
    if not len(samples):
        return ""
    rows = embed(samples.features, space.zero_point).mean(axis=1)
    named = union((), tuple(dict.fromkeys(samples.labels)))
    numbers = places(samples.labels, named)
    known = {label: place for place, label in enumerate(told.labels)}
    for number, label in enumerate(named):
        mine = numbers == number
        place = known.get(label)
        if place is None or mine.sum() < LEAST_SAMPLES or mine.sum() * 2 * SAMPLE_WEIGHT < told.counts[place]:
            continue
        sent, said = rows[mine].mean(axis=0), told.sums[place]
        cosine = float(sent @ said) / max(float(np.linalg.norm(sent) * np.linalg.norm(said)), 1e-12)
        if cosine < LEAST_COSINE:
            return f"what it told of class {label} is not what it sent of it"
    return ""
