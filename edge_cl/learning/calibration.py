"""Makes scores into probabilities, and says how familiar a picture is; both fitted on held-out answers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TEMPERATURES = np.geomspace(0.5, 64.0, 29)  # candidates, 19 % apart; LDA scores of real sets want 1 to 17
# Candidates for the share of wrong labels.
NOISE_RATES = np.array([0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
ROUGHLY = 1e-4  # a loss in single precision is off by less, absolutely and of itself
LOWEST_PROBABILITY = 1e-12  # keeps logarithms finite
FIRST_TEMPERATURE = 8.0  # until held-out answers exist
LOWEST_SCORE = -1e4  # stands for -inf, so that differences stay finite
LEVELS = 101  # quantiles kept of the held-out familiarity: one per cent steps
RANKS = np.linspace(0.0, 1.0, LEVELS)  # of those quantiles
REJECTED = 0.05  # share of familiar pictures that may be called unknown by mistake


class Calibration(NamedTuple):
    """How scores become probabilities: `temperature` divides them, `noise` in [0, 1) are wrong labels."""

    temperature: float
    noise: float
    loss: float


class Familiarity(NamedTuple):
    """How usual held-out taught pictures looked; a new one is ranked among them.

    The raw measure adds two standardised parts: minus the squared Mahalanobis distance to the answered class
    (Lee et al. 2018) and the log probability of the answer (Hendrycks and Gimpel 2017). Each alone misses
    what the other sees.

    Attributes:
        centre: (2,) mean of the two parts.
        spread: (2,) their standard deviation, above 0.
        levels: (LEVELS,) quantiles of their sum, rising; empty until there is something to compare with.
    """

    centre: Floats
    spread: Floats
    levels: Floats


def log_softmax(logits: NDArray) -> NDArray:
    """Return log probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def fit(scores: Floats, classes: NDArray) -> Calibration:
    """Fit temperature and label noise together, by maximum likelihood on held-out answers.

        p(label | x) = (1 - q) softmax(scores / T)[label] + q / C

    The temperature alone is Guo et al., On Calibration of Modern Neural Networks, 2017. Without q, a few
    wrong labels would make every probability soft, and hide themselves by it.

    Args:
        scores: (n, V, C) held-out scores; a sample's probability is the mean over its views.
        classes: (n,) labels as taught.
    """
    best = Calibration(FIRST_TEMPERATURE, 0.0, np.inf)
    for temperature in _promising(scores, classes):
        own = _own_probabilities(scores, classes, temperature)
        means = _mixture_losses(own[:, None], NOISE_RATES, scores.shape[-1]).mean(axis=0)
        if means.min() < best.loss:
            noise = float(NOISE_RATES[int(means.argmin())])
            best = Calibration(float(temperature), noise, float(means.min()))
    return best


def _promising(scores: Floats, classes: NDArray) -> Floats:
    """Return the temperatures whose loss may be the least, as far as single precision tells.

    It takes a third of the time. It may not decide: where all is right, losses of many temperatures differ in
    the ninth digit, and what rounding prefers there drifts from fit to fit.
    """
    finite = np.maximum(scores, LOWEST_SCORE)
    shifted = (finite - finite.max(axis=-1, keepdims=True)).astype(np.float32)
    losses = np.array([_single_loss(shifted / np.float32(t), classes) for t in TEMPERATURES])
    return TEMPERATURES[losses <= losses.min() * (1 + ROUGHLY) + ROUGHLY]


def _single_loss(logits: NDArray[np.float32], classes: NDArray) -> float:
    """Return the least loss over NOISE_RATES of logits (n, V, C) whose largest is 0."""
    chances = np.exp(logits)
    own = chances[np.arange(len(classes)), :, classes] / chances.sum(axis=-1)
    return float(_mixture_losses(own.mean(axis=1)[:, None], NOISE_RATES, logits.shape[-1]).mean(axis=0).min())


def _own_probabilities(scores: Floats, classes: NDArray, temperature: float) -> Floats:
    finite = np.maximum(scores, LOWEST_SCORE)
    return np.exp(log_softmax(finite / temperature))[np.arange(len(classes)), :, classes].mean(axis=1)


def _mixture_losses(own: Floats, noise: Floats | float, count_classes: int) -> Floats:
    mixed = (1.0 - noise) * own + noise / count_classes
    return -np.log(np.maximum(mixed, LOWEST_PROBABILITY))


def wrong_label(calibration: Calibration, own_probabilities: Floats, count_classes: int) -> Floats:
    """Return (n,) the posterior probability that a label is wrong, given its held-out probability (Bayes).

    A label is wrong when it is noise and not by chance that of the class, which has the probability p:

        P(wrong | label, x) = (1 - p) q / C  /  ((1 - q) p + q / C)
    """
    noise = calibration.noise / count_classes
    mixed = (1.0 - calibration.noise) * own_probabilities + noise
    return noise * (1.0 - own_probabilities) / np.maximum(mixed, LOWEST_PROBABILITY)


def unfitted_familiarity() -> Familiarity:
    """Return the familiarity that calls nothing unknown."""
    return Familiarity(np.zeros(2), np.ones(2), np.zeros(0))


def fit_familiarity(distances: Floats, log_probabilities: Floats) -> Familiarity:
    """Learn how usual held-out pictures look: their distances (n,) and answers' log probabilities (n,)."""
    parts = np.stack([-distances, log_probabilities], axis=1)
    centre, spread = parts.mean(axis=0), parts.std(axis=0) + 1e-9
    return Familiarity(centre, spread, np.quantile(((parts - centre) / spread).sum(axis=1), RANKS))


def rank_familiarity(reference: Familiarity, distances: Floats, log_probabilities: Floats) -> Floats:
    """Return (n,) the share of held-out pictures that looked stranger than these; 1 when none were seen."""
    if not len(reference.levels):
        return np.ones(len(distances))
    (usual_distance, usual_log), (distance_spread, log_spread) = reference.centre, reference.spread
    measure = (-distances - usual_distance) / distance_spread + (log_probabilities - usual_log) / log_spread
    return np.interp(measure, reference.levels, RANKS)
