"""Runs one peer as a process: `python -m host_trainer.distillation.codistillation.peer PLAN.json NUMBER`.

Standard output carries one JSON object a line, for whoever started it: {"step", ...scalars} now and then, at
the end {"done"}, or {"error", "status"}. It ends with 130 on SIGINT, its state saved; killed, it goes on from
its last save when started again.
"""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any

from edge_cl.errors import EdgeError
from host_trainer.artefacts import make_folder
from host_trainer.backbones.networks import with_head
from host_trainer.chatter import quiet_tensorflow
from host_trainer.checkpoints import NETWORK, save_network
from host_trainer.datasets.augmentation import Augmentation
from host_trainer.datasets.batches import steps_of
from host_trainer.datasets.folders import Pictures, read_folder
from host_trainer.datasets.pixels import Pixels, open_pixels
from host_trainer.datasets.splits import held_back
from host_trainer.distillation.codistillation.exchange import FolderStore
from host_trainer.distillation.codistillation.learner import Peer, Seat, Watch, codistillation_loss
from host_trainer.distillation.codistillation.plan import Plan, from_json
from host_trainer.distillation.codistillation.schedule import kept
from host_trainer.network import Network
from host_trainer.training.classification import Labelled, accuracy
from host_trainer.training.session import PIXELS, open_network
from host_trainer.training.trainer import RUNNING, Job

TOLD_EVERY = 10  # steps between two lines; the launcher shows them
STORE = "store"


class Parts:
    """The pictures of a plan: who learns from which, and which decide; decoded once, by whoever is first."""

    def __init__(self, plan: Plan) -> None:
        """List the pictures.

        Raises:
            ConfigError: too few pictures or classes.
        """
        self._plan, folder = plan, read_folder(plan.options.data)
        chosen = held_back(folder.train.labels, plan.validation, plan.options.seed)
        self.train, self.validation = (folder.train.at(chosen_.nonzero()[0]) for chosen_ in (~chosen, chosen))
        self.test, self.classes = folder.test, folder.train.classes

    def pixels(self, pictures: Pictures, size: tuple[int, int], watch: Any = lambda done: None) -> Pixels:
        """Return pictures decoded at `size` = (H, W)."""
        return open_pixels(
            pictures, size, self._plan.options.cache or self._plan.options.out / PIXELS, watch=watch
        )


def home_of(plan: Plan, number: int) -> Path:
    """Return the folder of a peer's training checkpoint."""
    return plan.options.out / RUNNING / f"peer-{number}"


def result_of(plan: Plan, number: int) -> Path:
    """Return the folder of the network that a peer ended with."""
    return plan.options.out / RUNNING / f"peer-{number}-done"


def open_seat(plan: Plan, number: int, parts: Parts) -> Seat:
    """Return the seat of one peer: its own first weights, order and augmentation; the store of all.

    Raises:
        ConfigError, ModelError, MismatchError: the plan cannot be done.
        StoreError: the disk refuses.
    """
    options, seed = plan.options, plan.seed(number)
    backbone = open_network(options.network, options.weights, seed)
    model = with_head(backbone.model, len(parts.classes), seed)
    network = backbone._replace(model=model, classes=parts.classes)
    pixels = parts.pixels(parts.train, network.input_size)
    steps = steps_of(options.epochs, len(pixels.values), options.batch)
    augmentation = Augmentation(options.augment, network.input_size, seed)
    source = Labelled(pixels, network, options.batch, seed, augmentation)
    facts = {**plan.facts(), "number": number, "steps": steps}
    job = Job(network, codistillation_loss(), source.__call__, plan.recipe(steps, number), facts)
    schedule = plan.schedule(steps)
    store = FolderStore(make_folder(options.out / RUNNING / STORE), kept(schedule, options.save_every))
    return Seat(number, plan.peers, job, schedule, store, home_of(plan, number), plan.lockstep)


def judge_and_keep(plan: Plan, number: int, network: Network, parts: Parts) -> float:
    """Save what a peer ended with and how well it names the pictures that no peer learned from."""
    right = accuracy(network, parts.pixels(parts.validation, network.input_size))
    origin = {**network.origin, "peer": number, "validation_accuracy": right}
    save_network(result_of(plan, number), network._replace(origin=origin))
    return right


def run_peer(plan: Plan, number: int, watch: Watch, stop: Event | None = None) -> None:
    """Train one peer from where it left off to its end; nothing to do when it got there before."""
    if (result_of(plan, number) / NETWORK).is_file():
        return
    parts = Parts(plan)
    network = Peer(open_seat(plan, number, parts), stop).run(watch)
    judge_and_keep(plan, number, network, parts)


def main(arguments: Sequence[str]) -> int:
    """Run a peer, telling the launcher; return the exit status."""
    quiet_tensorflow()
    stop = Event()
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    try:
        path, number = arguments
        plan = from_json(Path(path).read_text(encoding="utf-8"))
        run_peer(plan, int(number), _tell, stop)
    except KeyboardInterrupt:
        return 130
    except EdgeError as error:
        _say({"error": str(error), "status": error.exit_status})
        return error.exit_status
    _say({"done": True})
    return 0


def _tell(step: int, told: Mapping[str, float]) -> None:
    if step % TOLD_EVERY == 0:
        _say({"step": step, **told})


def _say(words: Mapping[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
