"""Decides what a student is blamed for: wrong labels, and disagreeing with its teacher. Pure `keras.ops`.

Letters: B batch, C classes, D features. Every loss is a mean over the batch, so a weight means the same at
any batch size. No gradient flows into labels or targets: they are data.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_cl.errors import ConfigError

NO_LABEL = -1  # of a picture that nobody named: it has a teacher, and no hard loss
LENGTH_FLOOR = 1e-12  # of a squared length; a dead feature has cosine 0 and a gradient that is a number
IMAGES, LABELS, TARGETS = "images", "labels", "targets"  # names in a batch

Loss = Callable[[Callable[..., Any], Mapping[str, Any]], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class SoftConfig:
    """How much the teacher's logits count beside the labels (Hinton, Vinyals and Dean 2014).

    Attributes:
        temperature: T, both sides' logits are divided by it; at 1 the teacher's small probabilities hardly
            count, far above their logits are matched (their section 2.1).
        soft: weight of the teacher's answer; the T^2 is in the loss, so weights stay when T changes.
        hard: weight of the labels; "considerably lower" than `soft` worked best for them.
    """

    temperature: float = 4.0
    soft: float = 0.9
    hard: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature {self.temperature:g} softens nothing: give a number above 0")
        if min(self.soft, self.hard) < 0 or self.soft + self.hard <= 0:
            raise ConfigError("weights of the soft and hard loss must not be negative, nor both 0")


def probabilities(logits: Any, temperature: float = 1.0) -> Any:
    """Return softmax(logits / T): (B, C); T is 1 to predict, the training's T for soft targets."""
    import keras

    return keras.ops.softmax(logits / temperature, axis=-1)


def hard_loss(logits: Any, labels: Any) -> Any:
    """Return the mean cross-entropy with the labels, over the samples that have one.

    Args:
        logits: (B, C).
        labels: (B,) integers, NO_LABEL where there is none; or (B, C) probabilities, of mixed pictures.
    """
    from keras import ops

    logs = ops.log_softmax(logits, axis=-1)
    if len(labels.shape) == 2:
        return -ops.mean(ops.sum(labels * logs, axis=-1))
    named = ops.cast(labels >= 0, logs.dtype)
    # one_hot gives zeros where the label is negative, so those samples add nothing above the line either.
    picked = ops.sum(ops.one_hot(labels, logs.shape[-1], dtype=logs.dtype) * logs, axis=-1)
    return -ops.sum(picked * named) / ops.maximum(ops.sum(named), 1.0)


def soft_loss(logits: Any, targets: Any, temperature: float = 1.0) -> Any:
    """Return T^2 KL(softmax(targets / T) || softmax(logits / T)), the mean over the batch.

    KL is the cross-entropy of the paper less the teacher's own entropy: the same gradient, and 0 where the
    two agree. Gradients of the cross-entropy fall as 1/T^2, hence the factor (Hinton et al. 2014, section 2).

    Args:
        logits: of the student, (B, C).
        targets: of the teacher, (B, C) logits, or anything equal to them up to a constant a row.
    """
    from keras import ops

    taught = ops.log_softmax(targets / temperature, axis=-1)
    said = ops.log_softmax(logits / temperature, axis=-1)
    return temperature**2 * ops.mean(ops.sum(ops.exp(taught) * (taught - said), axis=-1))


def squared_logit_loss(logits: Any, targets: Any) -> Any:
    """Return mean (v - z)^2 / (2 C) of logits whose rows have been centred: (B, C) twice to a scalar.

    What `soft_loss` becomes as T grows (Hinton et al. 2014, eq. 4); Bucila et al. 2006 trained so.
    """
    from keras import ops

    apart = _centred(logits) - _centred(targets)
    return 0.5 * ops.mean(ops.square(apart))


def cosine_loss(features: Any, targets: Any) -> Any:
    """Return the mean of 1 - cosine of each row with its target: (B, D) twice to a scalar in [0, 2]."""
    from keras import ops

    return ops.mean(1.0 - ops.sum(_unit(features) * _unit(targets), axis=-1))


def squared_loss(features: Any, targets: Any) -> Any:
    """Return the mean squared difference, (B, D) twice (Romero et al. 2015, eq. 3, less their 1/2)."""
    from keras import ops

    return ops.mean(ops.square(features - targets))


FEATURE_LOSSES = {"cosine": cosine_loss, "squared": squared_loss}


def logit_objective(config: SoftConfig) -> Loss:
    """Return the loss of a student that has a head: hard and soft, from a batch with labels and targets."""

    def objective(call: Callable[..., Any], batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        logits = call(batch[IMAGES], training=True)
        hard = hard_loss(logits, batch[LABELS])
        soft = soft_loss(logits, batch[TARGETS], config.temperature)
        return config.hard * hard + config.soft * soft, {"hard": hard, "soft": soft}

    return objective


def feature_objective(kind: str = "cosine") -> Loss:
    """Return the loss of a student with a projection (see `projection.py`): it must find the targets.

    Raises:
        ConfigError: no such loss.
    """
    if kind not in FEATURE_LOSSES:
        raise ConfigError(f"{kind!r} matches no features: give {' or '.join(FEATURE_LOSSES)}")
    match = FEATURE_LOSSES[kind]

    def objective(call: Callable[..., Any], batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        found = call(batch[IMAGES], training=True)
        return match(found, batch[TARGETS]), {"cosine": 1.0 - cosine_loss(found, batch[TARGETS])}

    return objective


def _unit(rows: Any) -> Any:
    """Give every row the length 1; zeros stay zeros."""
    from keras import ops

    squared = ops.sum(ops.square(rows), axis=-1, keepdims=True)
    return rows * ops.rsqrt(ops.maximum(squared, LENGTH_FLOOR))


def _centred(rows: Any) -> Any:
    from keras import ops

    return rows - ops.mean(rows, axis=-1, keepdims=True)
