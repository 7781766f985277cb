"""Decides what a continual training is made of, and refuses what makes no sense before anything is read."""

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from edge_cl.errors import ConfigError
from host_trainer.datasets.augmentation import MIXUP
from host_trainer.sparcl.methods import Averages, Method, method_of
from host_trainer.sparcl.schedule import EDGE, OFFICIAL, Sparsity

LEAST_EPOCHS, MOST_EPOCHS = 5, 50  # over a task; published are 50
LEAST_STEPS = 300  # of a task: in fewer, new classes are not yet told apart from old ones


@dataclass(frozen=True)
class Plan:
    """One continual training.

    Attributes:
        method: what a step minimises.
        sparsity: of a SparCL method; None for the others.
        epochs: over each task.
        batch: pictures of the stream a step.
        replay: pictures of each draw from the buffer.
        buffer: places of the reservoir; 0 for methods that replay nothing.
        augment: changes of pictures, drawn independently for the stream and each draw.
        momentum: of SGD; 0 in every publication.
        clip: longest gradient over all weights; 0 for none.
        seed: of weights, order, augmentation, reservoir and masks.
    """

    method: Method
    sparsity: Sparsity | None = None
    epochs: int = LEAST_EPOCHS
    batch: int = 32
    replay: int = 32
    buffer: int = 200
    augment: tuple[str, ...] = ("crop", "flip")
    momentum: float = 0.0
    clip: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2 or self.replay < 2:
            raise ConfigError("give at least 1 epoch a task, and batches of 2 or more")
        if self.method.sparse != (self.sparsity is not None):
            raise ConfigError(
                f"--sparsity and --mode belong to sparcl-er and sparcl-derpp, not to {self.method.name}"
                if self.sparsity
                else f"{self.method.name} needs a --sparsity, as 0.9"
            )
        if self.method.draws and self.buffer < 1:
            raise ConfigError(
                f"a buffer of {self.buffer} remembers nothing: give --buffer 1 or more, or --method sgd"
            )
        if MIXUP in self.augment:
            raise ConfigError("mixup mixes labels too, and replay keeps one of a picture: leave it out")
        if not 0 <= self.momentum < 1 or self.clip < 0 or not self.method.rate > 0:
            raise ConfigError("momentum is from 0 to below 1, clip 0 or more, and the rate above 0")

    @property
    def by_events(self) -> bool:
        """Whether data removal counts forgetting events, as the authors' code does."""
        return self.sparsity is not None and self.sparsity.mode == OFFICIAL


# Edge mode: one draw serves both replay losses, in one forward with the stream; replayed labels weigh as much
# as new ones; an average of the weights answers, and steadies what is replayed. DER++ loses by momentum.
# Shares are taken off the logits of all classes seen: among those of the task alone nobody learns to tell a
# new class from an old one but from the few of it that are remembered already.
EDGE_AVERAGE = Averages(spans=(0.1,), chances=(1.0,), weight=0.15)
EDGE_MOMENTUM = 0.9
EDGE_ADJUSTMENT = 0.5


def make_plan(
    method: str,
    sparsity: Sparsity | None = None,
    rate: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    **options: object,
) -> Plan:
    """Return the plan of a method by name; SparCL's modes change it as they are defined.

    Args:
        method: by name.
        sparsity: of a SparCL method.
        rate: of learning; None for the method's own, and so for the weights.
        alpha: weight of the MSE to kept logits (DER).
        beta: weight of the cross-entropy of replayed labels (DER++).
        options: of `Plan`.

    Raises:
        ConfigError: an unknown method, or options that do not go together.
    """
    chosen = method_of(method)
    if rate is not None:
        chosen = replace(chosen, rate=rate)
    if sparsity is not None and sparsity.mode == OFFICIAL:
        # The authors' code fills the buffer in the first task, and uses it from the second on.
        chosen = replace(chosen, first_task=False)
    if sparsity is not None and sparsity.mode == EDGE:
        chosen = replace(chosen, draws=1, merged=True, share=1.0, labels=1.0)
        chosen = replace(chosen, averages=EDGE_AVERAGE, adjustment=EDGE_ADJUSTMENT)
        options.setdefault("momentum", EDGE_MOMENTUM)
    chosen = _weighed(chosen, alpha, beta)
    return Plan(chosen, sparsity, **options)  # type: ignore[arg-type]


def usual_epochs(pictures: float, batch: int) -> int:
    """Return the epochs where nobody says, of tasks with so many pictures: 5, and more where they are few."""
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, ceil(LEAST_STEPS / ceil(pictures / batch))))


def _weighed(method: Method, alpha: float | None, beta: float | None) -> Method:
    for name, value, own in (("alpha", alpha, method.logits), ("beta", beta, method.labels)):
        if value is not None and (value < 0 or (value > 0 and not own)):
            what = "kept logits" if name == "alpha" else "replayed labels"
            raise ConfigError(
                f"--{name} weighs {what}, 0 or more: {method.name} has none, or {value:g} is less"
            )
    return replace(
        method,
        logits=method.logits if alpha is None else alpha,
        labels=method.labels if beta is None else beta,
    )


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain JSON values; `plan_of` reads them back."""
    facts = {name: value for name, value in vars(plan).items() if name not in ("method", "sparsity")}
    return {
        **facts,
        "augment": list(plan.augment),
        "method": plan.method.name,
        "rate": plan.method.rate,
        "alpha": plan.method.logits,
        "beta": plan.method.labels,
        "sparsity": asdict(plan.sparsity) if plan.sparsity else None,
    }


def plan_of(facts: dict[str, Any]) -> Plan:
    """Return the plan that `plan_facts` described.

    Raises:
        ConfigError: a method or setting that this program does not have.
    """
    given = dict(facts)
    method, rules = given.pop("method"), given.pop("sparsity")
    sparsity, augment = Sparsity(**rules) if rules else None, tuple(given.pop("augment"))
    return make_plan(method, sparsity, augment=augment, **given)
