"""The parity report: what it takes for an exported file to count as the same network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_trainer.export.cost import Cost
from host_trainer.export.parity import Features, Gate, Labelled, _reasons, judge
from host_trainer.export.probe import paired_loss, probe_accuracy, ridge

COST = Cost(latency_ms=0.5, peak_bytes=50 << 20)


def drawn(seed: int = 0, count: int = 200, classes: int = 4, size: int = 24) -> tuple[Labelled, Labelled]:
    """Features of four classes that lie well apart."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(0, 1.0, (classes, size))
    labels = np.arange(count) % classes
    features = (middles[labels] + rng.normal(0, 0.5, (count, size))).astype(np.float32)
    half = count // 2
    return Labelled(features[:half], labels[:half]), Labelled(features[half:], labels[half:])


def stored(parts: tuple[Labelled, Labelled], scale: float) -> Features:
    """Return the same features as an int8 file keeps them."""
    train, test = (
        Labelled(np.clip(np.round(p.features / scale) + 3, -128, 127).astype(np.int8), p.labels)
        for p in parts
    )
    return Features(train, test, scale, 3)


def test_a_faithful_file_passes() -> None:
    parts = drawn()
    parity = judge(Features(*parts), stored(parts, 0.03), COST, 600_000, Gate())
    assert parity.passed
    assert parity.cosine_min >= 0.999
    assert (parity.train, parity.test, parity.latency_ms) == (100, 100, 0.5)


def test_a_file_with_steps_too_wide_fails_by_its_cosine() -> None:
    parts = drawn()
    parity = judge(Features(*parts), stored(parts, 1.5), COST, 600_000, Gate())
    assert not parity.passed
    assert "cosine" in parity.reasons[0]


def test_a_file_that_lost_accuracy_fails_whatever_its_cosine() -> None:
    train, test = drawn()
    mixed = Labelled(train.features, np.roll(train.labels, 1))  # a probe learns nonsense from these
    parity = judge(Features(train, test), Features(mixed, test), COST, 600_000, Gate())
    assert [reason for reason in parity.reasons if "linear probe loses" in reason]
    assert parity.cosine_min == pytest.approx(1.0)


def test_what_few_pictures_lose_by_chance_is_no_evidence() -> None:
    assert not _reasons(1.0, 0.02, 0.0, 50, Gate())  # one picture of 50
    assert _reasons(1.0, 0.04, 0.02, 50, Gate())  # two of them
    assert not _reasons(1.0, 5 / 431, 0.0062, 431, Gate())  # within a standard error of the gate
    assert _reasons(1.0, 8 / 431, 0.0062, 431, Gate())


def test_the_error_of_a_loss_is_that_of_the_pictures_that_changed() -> None:
    before, after = np.ones(100, bool), np.ones(100, bool)
    assert paired_loss(before, after) == (0.0, 0.0)
    after[:4] = False
    loss, error = paired_loss(before, after)
    assert loss == pytest.approx(0.04)
    assert error == pytest.approx(np.sqrt(0.04 * 0.96 / 99))
    before[10:14] = False  # what comes back is a change, too: the loss is nothing, its error is larger
    loss, wider = paired_loss(before, after)
    assert loss == 0.0 and wider > error


def test_a_feature_that_is_no_number_never_passes() -> None:
    train, test = drawn()
    broken = Labelled(train.features.copy(), train.labels)
    broken.features[0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        assert _reasons(float("nan"), 0.0, 0.0, 50, Gate())


def test_the_gate_is_tighter_for_a_network_trained_with_the_rounding() -> None:
    assert (Gate.of("qat").accuracy_drop, Gate.of("ptq").accuracy_drop) == (0.003, 0.01)
    assert Gate.of("qat").cosine_min == 0.95


def test_the_report_is_plain_json() -> None:
    import json

    parts = drawn()
    report = json.loads(json.dumps(judge(Features(*parts), Features(*parts), COST, 1, Gate()).to_dict()))
    assert report["passed"] is True
    assert report["gate"] == {"cosine_min": 0.95, "accuracy_drop": 0.01}


def test_the_probe_finds_classes_that_lie_apart_and_says_the_same_twice() -> None:
    train, test = drawn(3)
    first = probe_accuracy(*train, *test)
    assert first >= 0.95
    assert first == probe_accuracy(*train, *test)


def test_the_probe_does_not_care_about_scale_and_zero_point() -> None:
    train, test = drawn(4)
    kept = stored((train, test), 0.01)
    assert probe_accuracy(*kept.train, *kept.test, kept.zero_point) == pytest.approx(
        probe_accuracy(*train, *test), abs=0.02
    )


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(6, 30), size=st.integers(2, 40))
def test_the_closed_form_is_least_squares_with_a_penalty(seed: int, count: int, size: int) -> None:
    """The gradient of |XW + b - Y|^2 + p |W|^2 vanishes for one of the penalties, in both shapes."""
    rng = np.random.default_rng(seed)
    inputs, wanted = rng.normal(size=(count, size)), rng.normal(size=(count, 3))
    weights, bias = ridge(inputs, wanted)
    residual = inputs @ weights + bias - wanted
    assert np.allclose(residual.sum(axis=0), 0, atol=1e-6)
    gradient = inputs.T @ residual
    penalty = -(gradient * weights).sum() / max(np.square(weights).sum(), 1e-12)
    assert penalty >= -1e-6
    assert np.allclose(gradient, -penalty * weights, atol=1e-5)
