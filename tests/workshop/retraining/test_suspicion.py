"""Who contradicts all others is named, and nobody else: swapped or guessed labels, stretched features."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from simulators.devices import SPACE, Device, drawn_samples

from edge_cl.learning.named import Named
from edge_cl.wire.codec import content_id
from host_trainer.retraining.samples import Samples, joined, statistics_of
from host_trainer.retraining.suspicion import Finding, suspicion
from host_trainer.retraining.told import Told, taken_in

LABELS = ("can", "mug", "tin", "jar", "box")


def told_by(samples: Samples) -> Told:
    message = Device(samples.devices[0], rank=16).tell(samples)
    return taken_in(None, message, content_id(message), ())


def fleet(*liars: Samples, honest: int = 4, each: int = 15) -> list[Samples]:
    return [*(drawn_samples(LABELS, each, n, f"honest-{n}") for n in range(honest)), *liars]


def named(host: Sequence[Samples], devices: Sequence[Samples], samples: bool = False) -> dict[str, Finding]:
    known = [Named(LABELS, statistics_of(each, LABELS, 0)) for each in host]
    parts = joined([*devices, *host]) if samples else joined([each.at([]) for each in devices])
    return suspicion(known, [told_by(each) for each in devices], parts, SPACE)


def accused(findings: dict[str, Finding]) -> set[str]:
    return {device for device, found in findings.items() if found.reason}


def shuffled(samples: Samples, share: float, seed: int = 0) -> Samples:
    """Return samples with a share of the labels drawn at random."""
    rng = np.random.default_rng(seed)
    labels = [str(rng.choice(LABELS)) if rng.random() < share else label for label in samples.labels]
    return replace(samples, labels=tuple(labels))


def swapped(samples: Samples) -> Samples:
    turned = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))
    return replace(samples, labels=tuple(turned[label] for label in samples.labels))


HELD_OUT = drawn_samples(LABELS, 10, 99)


@pytest.mark.parametrize("host", [[HELD_OUT], []], ids=["with pictures of our own", "without"])
def test_honest_devices_agree_and_nobody_is_named(host: list[Samples]) -> None:
    findings = named(host, fleet())
    assert not accused(findings)
    assert all(found.agreement is not None and found.agreement > 0.85 for found in findings.values())


@pytest.mark.parametrize("host", [[HELD_OUT], []], ids=["with pictures of our own", "without"])
@pytest.mark.parametrize(
    "lie",
    [swapped, lambda s: shuffled(s, 1.0), lambda s: shuffled(s, 0.7)],
    ids=["swapped", "guessed", "mostly"],
)
def test_a_liar_among_five_is_named_alone(host: list[Samples], lie) -> None:
    liar = lie(drawn_samples(LABELS, 40, 7, "liar"))  # louder than all others
    findings = named(host, fleet(liar))
    assert accused(findings) == {"liar"}
    assert "agree" in findings["liar"].reason


def test_two_liars_of_one_mind_do_not_make_the_others_look_wrong() -> None:
    liars = [swapped(drawn_samples(LABELS, 15, 7 + n, f"liar-{n}")) for n in range(2)]
    assert accused(named([HELD_OUT], fleet(*liars))) == {"liar-0", "liar-1"}


def test_another_camera_is_no_lie_and_a_liar_behind_one_is_found() -> None:
    def through(samples: Samples) -> Samples:
        tint = np.random.default_rng(5).normal(0, 40, samples.features.shape[-1])
        return replace(samples, features=np.clip(samples.features + tint, -128, 127).astype(np.int8))

    honest = through(drawn_samples(LABELS, 15, 7, "other-camera"))
    assert not accused(named([HELD_OUT], fleet(honest)))
    assert accused(named([HELD_OUT], fleet(swapped(honest)))) == {"other-camera"}


def test_a_few_wrong_labels_are_no_lie() -> None:
    assert not accused(named([HELD_OUT], fleet(shuffled(drawn_samples(LABELS, 20, 7, "careless"), 0.2))))


def test_of_two_that_disagree_nobody_can_say_who_is_right() -> None:
    one, other = drawn_samples(LABELS, 15, 0, "one"), swapped(drawn_samples(LABELS, 15, 1, "other"))
    findings = named([], [one, other])
    assert not accused(findings) and findings["one"].agreement is None


def test_a_class_that_only_one_device_knows_is_not_judged() -> None:
    alone = drawn_samples(("pot", "pan"), 15, 0, "alone")
    findings = named([], fleet(alone))
    assert not accused(findings) and findings["alone"].agreement is None


@pytest.mark.parametrize("factor", [0.3, 2.6])
def test_features_that_are_stretched_are_found(factor: float) -> None:
    usual = drawn_samples(LABELS, 15, 7, "stretched", spread=8.0)
    stretched = replace(usual, features=np.clip(usual.features * factor, -128, 127).astype(np.int8))
    others = [drawn_samples(LABELS, 15, n, f"honest-{n}", spread=8.0) for n in range(4)]
    findings = named([], [*others, stretched], samples=True)
    assert accused(findings) == {"stretched"} and "times as long" in findings["stretched"].reason


def test_classes_with_longer_features_than_others_have_are_no_lie() -> None:
    others = [drawn_samples(LABELS[1:], 15, n, f"honest-{n}", spread=8.0) for n in range(3)]
    long = drawn_samples(LABELS[:1], 15, 7, "alone", spread=8.0)
    long = replace(long, features=np.clip(long.features.astype(int) * 4, -128, 127).astype(np.int8))
    assert not accused(named([], [*others, long], samples=True))


def test_who_sends_other_samples_than_it_told_of_is_found() -> None:
    devices = fleet()
    told = [told_by(each) for each in devices]
    sent = joined([*devices[1:], replace(swapped(devices[0]), devices=devices[0].devices)])
    findings = suspicion([], told, sent, SPACE)
    assert accused(findings) == {"honest-0"} and "not what it sent" in findings["honest-0"].reason
