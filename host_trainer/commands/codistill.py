"""`host-trainer codistill`: several networks train at once and teach each other; the best one ships."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from host_trainer.chatter import quiet_tensorflow
from host_trainer.commands.terminal import AsJson, meter, print_json
from host_trainer.commands.train_options import (
    Augment,
    BatchSize,
    Cache,
    Data,
    Epochs,
    NetworkName,
    Out,
    Rate,
    SaveEvery,
    Seed,
    Weights,
    names_of,
)

Peers = Annotated[int, typer.Option("--peers", metavar="N", min=2, max=16, help="How many train at once.")]
Interval = Annotated[
    int, typer.Option("--interval", metavar="STEPS", min=1, help="Steps between two exchanges.")
]
BurnIn = Annotated[
    float, typer.Option("--burn-in", metavar="SHARE", min=0, max=0.99, help="Share of the steps taken alone.")
]
Weight = Annotated[
    float, typer.Option("--weight", metavar="WEIGHT", help="Of the others' prediction beside the labels.")
]
Validation = Annotated[
    float,
    typer.Option(
        "--validation", metavar="SHARE", help="Share of the pictures that only choose which network ships."
    ),
]
MaxAge = Annotated[
    int | None,
    typer.Option(
        "--max-age", metavar="STEPS", min=1, help="Steps; older checkpoints of others do not count."
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", help="processes on this machine, ray actors, or inline: in turn, in one."
    ),
]
Lockstep = Annotated[
    bool, typer.Option("--lockstep", help="Peers wait for each other: slower, and the same result each time.")
]


def codistill(
    data: Data,
    out: Out,
    network: NetworkName = "mobilenetv2:0.35/96",
    weights: Weights = "random",
    peers: Peers = 2,
    interval: Interval = 50,
    burn_in: BurnIn = 0.4,
    weight: Weight = 1.0,
    validation: Validation = 0.1,
    max_age: MaxAge = None,
    epochs: Epochs = 20,
    batch: BatchSize = 64,
    rate: Rate = 2e-3,
    augment: Augment = "flip,crop",
    seed: Seed = 0,
    save_every: SaveEvery = 500,
    cache: Cache = None,
    engine: Engine = "processes",
    lockstep: Lockstep = False,
    as_json: AsJson = False,
) -> None:
    """Train peers that match each other's stale predictions, and keep the best by pictures none of them saw.

    A peer that dies is started again and goes on. Ctrl-C saves all of them; the same command goes on.
    """
    quiet_tensorflow()
    from host_trainer.distillation.codistillation.plan import Plan
    from host_trainer.distillation.codistillation.session import facts, planned_steps, run_codistillation
    from host_trainer.training.session import Options

    options = Options(
        data=data,
        out=out,
        network=network,
        weights=weights,
        epochs=epochs,
        batch=batch,
        rate=rate,
        augment=names_of(augment),
        seed=seed,
        save_every=save_every,
        cache=cache,
    )
    plan = Plan(
        options,
        peers=peers,
        burn_in=burn_in,
        interval=interval,
        max_age=max_age,
        weight=weight,
        validation=validation,
        engine=engine,
        lockstep=lockstep,
    )
    reached = dict.fromkeys(range(peers), 0)
    with meter(planned_steps(plan) * peers) as bar:

        def progress(peer: int, step: int, told: Mapping[str, float]) -> None:
            reached[peer] = max(step, reached[peer])
            words = "  ".join(f"{name} {value:.3f}" for name, value in told.items())
            bar.show(sum(reached.values()), f"peer {peer}: {words}", batch)

        outcome = facts(run_codistillation(plan, progress), plan)
    if as_json:
        print_json(outcome)
    else:
        show(outcome)


def show(outcome: dict[str, Any]) -> None:
    """Say in words what came out."""
    each = ", ".join(f"{right:.1%}" for right in outcome["validation_accuracy"])
    typer.echo(f"{outcome['peers']} peers right on {each} of the validation pictures")
    tested = outcome["test_accuracy"]
    judged = f", right on {tested:.1%} of unseen pictures" if tested is not None else ""
    typer.echo(f"peer {outcome['shipped']} ships{judged}; it lives in {outcome['out']}")
