"""Runs a codistillation from a plan to the one network that ships: the shell around engines and disk."""

from pathlib import Path
from typing import Any, NamedTuple

from edge_cl.errors import MismatchError
from host_trainer.artefacts import make_folder, write_file
from host_trainer.checkpoints import load_network
from host_trainer.datasets.batches import steps_of
from host_trainer.distillation.codistillation.engines import (
    Progress,
    run_inline,
    run_processes,
    run_ray,
)
from host_trainer.distillation.codistillation.peer import Parts, result_of
from host_trainer.distillation.codistillation.plan import Plan, from_json, to_json
from host_trainer.network import Network
from host_trainer.training.classification import accuracy
from host_trainer.training.session import check_out, finish, open_network
from host_trainer.training.trainer import RUNNING

PLAN = "plan.json"


class Outcome(NamedTuple):
    """What came of a codistillation.

    Attributes:
        network: the one that ships, saved in the plan's `out`.
        peer: which one it is.
        validation: accuracy of each peer on the pictures that no peer learned from.
        test_accuracy: of the one that ships; None without a test part.
        train: pictures learned from.
        refused: pictures that could not be read, and why.
        restarts: how often a peer died and was started again.
    """

    network: Network
    peer: int
    validation: tuple[float, ...]
    test_accuracy: float | None
    train: int
    refused: tuple[str, ...]
    restarts: int


def planned_steps(plan: Plan) -> int:
    """Return how many steps each peer will take, if all pictures can be read; opens none.

    Raises:
        ConfigError: too few pictures or classes.
    """
    return steps_of(plan.options.epochs, len(Parts(plan).train.paths), plan.options.batch)


def run_codistillation(plan: Plan, progress: Progress = lambda peer, step, told: None) -> Outcome:
    """Train the peers, choose the best by validation, and save it in `plan.options.out`.

    A codistillation that was stopped goes on when it is asked for again.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done.
        StoreError: the disk refuses.
        EngineError: a peer failed for good.
        KeyboardInterrupt: Ctrl-C; every peer process has saved its state.
    """
    check_out(plan.options.out)
    path = _write_plan(plan)
    parts = Parts(plan)
    size = open_network(plan.options.network, plan.options.weights, plan.seed(0)).input_size
    train = parts.pixels(parts.train, size)  # decoded here, once; peers find the file
    parts.pixels(parts.validation, size)
    restarts = _run(plan, path, progress)
    peer, validation, network = _best(plan)
    tested = accuracy(network, parts.pixels(parts.test, size)) if parts.test.paths else None
    finish(network, plan.options.out, {"command": "distill", "test_accuracy": tested, **plan.facts()})
    return Outcome(network, peer, validation, tested, len(train.values), train.refused, restarts)


def _run(plan: Plan, path: Path, progress: Progress) -> int:
    if plan.engine == "processes":
        return run_processes(plan, path, progress)
    return run_ray(plan, progress) if plan.engine == "ray" else run_inline(plan, progress)


def _write_plan(plan: Plan) -> Path:
    """Leave the plan where peers read it; one that is there already must ask for the same."""
    path = make_folder(plan.options.out / RUNNING) / PLAN
    if path.is_file():
        earlier = from_json(path.read_text(encoding="utf-8")).facts()
        differing = sorted(k for k in plan.facts() if plan.facts()[k] != earlier.get(k))
        if differing:
            raise MismatchError(
                f"{plan.options.out} holds a codistillation with other {', '.join(differing)}:"
                " give the same to go on, or another --out"
            )
    write_file(path, to_json(plan).encode("utf-8"))
    return path


def _best(plan: Plan) -> tuple[int, tuple[float, ...], Network]:
    """Return the number, all accuracies, and the network of the best; of equal ones the first."""
    networks = [load_network(result_of(plan, number)) for number in range(plan.peers)]
    scores = tuple(float(each.origin["validation_accuracy"]) for each in networks)
    best = max(range(plan.peers), key=lambda number: scores[number])
    return best, scores, networks[best]


def facts(outcome: Outcome, plan: Plan) -> dict[str, Any]:
    """Return an outcome as plain values, for the command's JSON."""
    return {
        "out": str(plan.options.out),
        "network": plan.options.network,
        "classes": list(outcome.network.classes),
        "peers": plan.peers,
        "shipped": outcome.peer,
        "validation_accuracy": list(outcome.validation),
        "test_accuracy": outcome.test_accuracy,
        "train": outcome.train,
        "refused": list(outcome.refused),
        "restarts": outcome.restarts,
    }
