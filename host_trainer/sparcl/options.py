"""What a person asks of a continual training, and which plan that makes; refuses what cannot be together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_cl.errors import ConfigError, MismatchError
from host_trainer.backbones.weights import RANDOM
from host_trainer.sparcl.methods import method_of
from host_trainer.sparcl.plan import Plan, make_plan, plan_facts, plan_of
from host_trainer.sparcl.schedule import EDGE, PARTS, Sparsity
from host_trainer.sparcl.tasks import CLASS

USUAL_METHOD, USUAL_NETWORK, USUAL_SPARSITY = "sparcl-derpp", "resnet18:0.5", 0.9


@dataclass(frozen=True)
class Options:
    """What a person asks of a continual training; see `host-trainer train --help`. None: the usual.

    With `origin` (--from) it goes on from a finished one, with its network, method, masks, buffer and
    averages; the usual epochs, batch, rate, bound, augmentation and seed are then those of that one.
    """

    data: str
    out: Path
    command: str = "host-trainer train"
    root: Path = Path()
    origin: Path | None = None
    protocol: str = CLASS
    tasks: int | None = None
    network: str | None = None
    weights: str | None = None
    method: str | None = None
    mode: str | None = None
    sparsity: float | None = None
    without: tuple[str, ...] = ()
    buffer: int | None = None
    epochs: int | None = None
    batch: int | None = None
    rate: float | None = None
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None
    augment: tuple[str, ...] | None = None
    seed: int | None = None
    save_every: int = 500
    cache: Path | None = None


def new_plan(options: Options) -> Plan:
    """Return the plan of a training from the beginning.

    Raises:
        ConfigError: options that do not go together.
    """
    method = options.method or USUAL_METHOD
    sparse = method_of(method).sparse
    if not sparse and (options.mode or options.sparsity is not None or options.without):
        raise ConfigError(
            f"--mode, --sparsity and --without belong to sparcl-er and sparcl-derpp, not to {method}"
        )
    if sparse and set(PARTS) <= set(options.without):
        raise ConfigError(f"{method} without {', '.join(PARTS)} is dense: give --method derpp or er")
    rules = None
    if sparse:
        sparsity = USUAL_SPARSITY if options.sparsity is None else options.sparsity
        switches: dict[str, Any] = dict.fromkeys(options.without, False)
        rules = Sparsity(options.mode or EDGE, sparsity, **switches)
    buffer = {} if options.buffer is None else {"buffer": options.buffer}
    return make_plan(method, rules, **_given(options), **buffer)


def next_plan(options: Options, before: Plan) -> Plan:
    """Return the plan of a training that goes on from a finished one.

    What was learned stands on its method, masks and buffer, so they stay; how it goes on may change.

    Raises:
        ConfigError: --from goes with other options, or a training that cannot go on.
        MismatchError: another method, mode, sparsity or buffer than before.
    """
    if before.method.joint:
        raise ConfigError(
            f"{options.origin} saw all data at once (joint), and would forget them: train anew on old and new"
        )
    _refuse_new_network(options)
    rules = before.sparsity
    left_out = tuple(part for part in PARTS if rules and not getattr(rules, part))
    asked = {
        "--method": (options.method, before.method.name),
        "--mode": (options.mode, rules.mode if rules else "none"),
        "--sparsity": (options.sparsity, rules.sparsity if rules else 0.0),
        "--buffer": (options.buffer, before.buffer if before.method.draws else 0),
        "--without": (", ".join(sorted(options.without)) or None, ", ".join(sorted(left_out)) or "none"),
    }
    for name, (now, then) in asked.items():
        if now is not None and now != then:
            raise MismatchError(
                f"{options.origin} was trained with {name} {then}, not {now}: leave {name} out to go on"
            )
    return plan_of({**plan_facts(before), **_given(options)})


def _given(options: Options) -> dict[str, Any]:
    """Return what of a plan may be chosen freely, as far as it was."""
    names = ("rate", "alpha", "beta", "epochs", "batch", "clip", "augment", "seed")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _refuse_new_network(options: Options) -> None:
    for name, value in {"--network": options.network, "--weights": options.weights}.items():
        if value not in (None, RANDOM):
            raise ConfigError(f"--from brings its own network: leave {name} out")
