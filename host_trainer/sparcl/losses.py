"""Decides what a step of continual training minimises, in keras.ops: written once, for every method.

A batch holds, by name:
    images (B, H, W, 3), labels (B,) int, known (C,) how often each class counts in the stream's softmax:
    once, not at all, or by its share where shares are taken off;
    from the first replay on: memory_images (R, H, W, 3), memory_labels (R,), memory_known (C,),
    memory_logits (R, C), and for a second draw later_images (R, H, W, 3), later_labels (R,).
    A batch without `memory_images` is one without replay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from host_trainer.sparcl.methods import Method
from host_trainer.training.gradients import Call, Loss

ABSENT = -1e9  # logit of a class that does not count; as in the authors' code
LEAST = 1e-12  # share whose logarithm is taken; a class that does not count has one too
LOGITS = "logits"
WHOLE = ("known", "memory_known")  # what of a batch is no row for each picture


def objective(method: Method) -> Loss:
    """Return the loss of a step; beside it the stream's `logits` (B, C), which the reservoir and DDR want."""

    def loss(call: Call, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        stream, *replayed = _answers(call, batch, method.merged)
        value = single_head(stream, batch["labels"], batch["known"])
        if replayed:
            value = method.share * value + _rehearsed(method, call, replayed, batch)
        return value, {LOGITS: stream}

    return loss


def _rehearsed(method: Method, call: Call, replayed: list[Any], batch: Mapping[str, Any]) -> Any:
    labels = batch["later_labels" if len(replayed) > 1 else "memory_labels"]
    value = method.labels * single_head(replayed[-1], labels, batch["memory_known"])
    if method.logits:
        value += method.logits * squared(replayed[0], batch["memory_logits"])
    if method.averages is not None:
        answers = [follower(batch["memory_images"]) for follower in call.followers]
        value += method.averages.weight * squared(replayed[0], surest(answers, batch["memory_labels"]))
    return value


def stream_loss(call: Call, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the single-head loss for CWI and CGI (SparCL section 3.1): L~(D_t) of the task's classes.

    Of remembered samples with all classes known it is L(M).
    """
    return single_head(call(batch["images"], training=True), batch["labels"], batch["known"]), {}


def single_head(logits: Any, labels: Any, known: Any) -> Any:
    """Return the mean cross-entropy among known classes only: no gradient reaches the others' logits.

    A class counts `known` times in the softmax: given shares, this is logit adjustment (Menon et al. 2021,
    eq. 10), and a logit need not say how often its class comes.
    """
    from keras import ops

    counted = ops.where(known > 0, logits + ops.log(ops.maximum(known, LEAST)), ABSENT)
    return -ops.mean(ops.take_along_axis(ops.log_softmax(counted, axis=-1), labels[:, None], axis=-1))


def squared(logits: Any, wanted: Any) -> Any:
    """Return the mean squared difference over batch and classes, those of the future too (DER eq. 6)."""
    from keras import ops

    return ops.mean(ops.square(logits - ops.stop_gradient(wanted)))


def surest(answers: Sequence[Any], labels: Any) -> Any:
    """Return per sample the logits (R, C) of the average that is surest of its label (CLS-ER eq. 4)."""
    from keras import ops

    best, sure = answers[0], _truth(answers[0], labels)
    for other in answers[1:]:
        probability = _truth(other, labels)
        best = ops.where(probability > sure, other, best)
        sure = ops.maximum(probability, sure)
    return ops.stop_gradient(best)


def _truth(logits: Any, labels: Any) -> Any:
    from keras import ops

    return ops.take_along_axis(ops.softmax(logits, axis=-1), labels[:, None], axis=-1)


def _answers(call: Call, batch: Mapping[str, Any], merged: bool) -> list[Any]:
    names = [name for name in ("images", "memory_images", "later_images") if name in batch]
    if not merged:
        return [call(batch[name], training=True) for name in names]
    from keras import ops

    together = call(ops.concatenate([batch[name] for name in names]), training=True)
    sizes = [batch[name].shape[0] for name in names]
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [together[end - size : end] for end, size in zip(ends, sizes, strict=True)]
