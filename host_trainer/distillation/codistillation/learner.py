"""One peer of a codistillation: trains on its own stream, publishes itself, and listens to the others.

All that reaches it from outside are its data and the store. `peer.py` runs one as a process.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from edge_cl.errors import ConfigError, MismatchError
from host_trainer.checkpoints import (
    Training,
    below,
    load_training,
    optimizer_state,
    restore_optimizer,
    save_network,
    set_weights,
    under,
    weights_of,
)
from host_trainer.checkpoints import load_network as load_checkpoint
from host_trainer.distillation.codistillation import exchange
from host_trainer.distillation.codistillation.exchange import Published, Store
from host_trainer.distillation.codistillation.schedule import Schedule, believed, exchanges
from host_trainer.distillation.losses import IMAGES, LABELS, TARGETS, hard_loss, soft_loss
from host_trainer.distillation.teachers import mean_of_softmaxes
from host_trainer.network import Network
from host_trainer.training.gradients import Loss, open_stepper
from host_trainer.training.trainer import Job, make_optimizer

TRUST = "trust"  # name in a batch: how much the others' prediction counts at this step, 0 in the burn-in
POLL_S = 0.05  # between two looks for a checkpoint that must come

Watch = Callable[[int, Mapping[str, float]], None]


class Seat(NamedTuple):
    """What makes a peer this one.

    Attributes:
        number: of this peer, from 0.
        peers: how many there are.
        job: its network, stream and recipe; its loss is `codistillation_loss`.
        schedule: when to exchange.
        store: where.
        home: folder of its own training checkpoint.
        lockstep: wait at each exchange for the others' checkpoints of the same step. Then the result depends
            on the seeds alone, whoever is slow or dies; without it nobody waits for anybody.
    """

    number: int
    peers: int
    job: Job
    schedule: Schedule
    store: Store
    home: Path
    lockstep: bool = False

    @property
    def others(self) -> list[int]:
        """The numbers of the other peers."""
        return [peer for peer in range(self.peers) if peer != self.number]


def codistillation_loss() -> Loss:
    """Return phi + trust * psi: cross-entropy with labels, and KL from the mean of the others' softmaxes.

    T is 1, no gradient flows into the others (Anil et al. 2018, algorithm 1; KL for their cross-entropy).
    """

    def loss(call: Callable[..., Any], batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        from keras import ops

        logits = call(batch[IMAGES], training=True)
        hard, soft = hard_loss(logits, batch[LABELS]), soft_loss(logits, batch[TARGETS])
        right = ops.equal(ops.argmax(logits, -1), ops.argmax(batch[LABELS], -1))
        told = {"accuracy": ops.mean(ops.cast(right, "float32")), "apart": soft * batch[TRUST]}
        return hard + batch[TRUST] * soft, told

    return loss


class Peer:
    """A peer between two steps; drive it by `exchange`, `learn`, `save`, or all of them by `run`.

    Attributes:
        step: steps behind it.
        held: peer to the step of the stale checkpoint of it that is held here.
    """

    def __init__(self, seat: Seat, stop: Event | None = None) -> None:
        """Take the seat, going on from the checkpoint in its home where there is one.

        Args:
            seat: which peer this is.
            stop: when set, `run` saves and ends between two steps, as on Ctrl-C.

        Raises:
            MismatchError: that checkpoint is of another training.
        """
        self.seat, self.step, self._stop = seat, 0, stop or Event()
        self.held: dict[int, int] = {}
        self._copies: dict[int, Any] = {}
        self._optimizer = make_optimizer(seat.job.recipe)
        self._stepper = open_stepper(seat.job.network.model, self._optimizer, seat.job.loss)
        if seat.home.is_dir():
            self._resume()
        self._stepper.resume()

    @property
    def _exchanges(self) -> bool:
        return self.seat.peers > 1 and exchanges(self.step, self.seat.schedule)

    @property
    def is_done(self) -> bool:
        """Whether the last step is behind it."""
        return self.step >= self.seat.job.recipe.steps

    def run(self, watch: Watch = lambda step, told: None) -> Network:
        """Go on to the last step and return the network with its averaged weights.

        Raises:
            KeyboardInterrupt: `stop` was set; the state is saved.
            ConfigError: the loss is no longer a number.
            StoreError: the disk refuses.
        """
        while not self.is_done:
            self._check_stop()
            self.exchange()
            told = self.learn()
            watch(self.step, told)
            self.save_if_due()
        return self.finish()

    def exchange(self) -> None:
        """Publish and read, if this is a step to do so."""
        self.publish_if_due()
        self.read_if_due()

    def publish_if_due(self) -> None:
        """Publish, if this is a step to do so."""
        if self._exchanges:
            self.publish()

    def read_if_due(self) -> None:
        """Read, if this is a step to do so."""
        if self._exchanges:
            self.read()

    def publish(self) -> None:
        """Leave this peer's weights in the store."""
        self._stepper.settle()
        weights = weights_of(self.seat.job.network.model)
        data = exchange.packed(Published(self.seat.number, self.step, weights))
        self.seat.store.publish(self.seat.number, self.step, data)

    def read(self) -> None:
        """Take what the others have published: the newest, or, in lockstep, what belongs to this step."""
        for peer in self.seat.others:
            found = self._awaited(peer) if self.seat.lockstep else self._newest(peer)
            if found is not None:
                self._hold(peer, found.step, found.weights)

    def learn(self) -> dict[str, float]:
        """Take one step on the own stream; return what the loss told.

        Raises:
            ConfigError: the loss is no longer a number.
        """
        batch = dict(self.seat.job.source(self.step))
        teachers = believed(self.step, self.held, self.seat.schedule)
        batch[TARGETS] = self._said(teachers, batch[IMAGES])
        batch[TRUST] = np.float32(self.seat.schedule.weight if teachers else 0.0)
        told = self._stepper.step(batch)
        self.step += 1
        if not np.isfinite(told["loss"]):
            raise ConfigError(
                f"the loss of peer {self.seat.number} is {told['loss']} at step {self.step}:"
                " lower the learning rate (--rate)"
            )
        return told

    def save_if_due(self) -> None:
        """Save every `save_every` steps, but not when done."""
        if self.step % self.seat.job.recipe.save_every == 0 and not self.is_done:
            self.save()

    def save(self) -> None:
        """Write the own training checkpoint: the network, the optimizer, and the stale copies held here."""
        self._stepper.settle()
        numbers = optimizer_state(self._optimizer)
        training = Training(self.step, numbers, self._held_tensors(), dict(self.seat.job.facts))
        save_network(self.seat.home, self.seat.job.network, training)

    def finish(self) -> Network:
        """Return the network, its weights averaged over the last steps as the recipe says."""
        self._stepper.settle()
        if self.seat.job.recipe.average:
            self._optimizer.finalize_variable_values(self.seat.job.network.model.trainable_variables)
        return self.seat.job.network

    def _said(self, teachers: tuple[int, ...], images: np.ndarray) -> np.ndarray:
        """Return log of the mean of the teachers' softmaxes: (B, H, W, 3) to (B, C); zeros of none."""
        if not teachers:
            classes = int(self.seat.job.network.model.output.shape[-1])
            return np.zeros((len(images), classes), np.float32)
        return mean_of_softmaxes([self._copies[peer].predict_on_batch(images) for peer in teachers])

    def _newest(self, peer: int) -> Published | None:
        return exchange.newest(self.seat.store, peer, self.held)

    def _awaited(self, peer: int) -> Published:
        while (found := exchange.exactly(self.seat.store, peer, self.step)) is None:
            self._stop.wait(POLL_S)
            self._check_stop()
        return found

    def _check_stop(self) -> None:
        if self._stop.is_set():
            self.save()
            raise KeyboardInterrupt

    def _hold(self, peer: int, step: int, weights: Mapping[str, np.ndarray]) -> None:
        if peer not in self._copies:
            import keras

            model = self.seat.job.network.model
            self._copies[peer] = keras.models.model_from_json(model.to_json())
        set_weights(self._copies[peer], weights, f"the checkpoint of peer {peer}")
        self.held[peer] = step

    def _held_tensors(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for peer, step in self.held.items():
            found[f"{peer}/step"] = np.array(step, np.int64)
            found |= under(f"{peer}/weights", weights_of(self._copies[peer]))
        return found

    def _resume(self) -> None:
        saved = load_training(self.seat.home)
        if saved is None:
            return
        if saved.facts != dict(self.seat.job.facts):
            raise MismatchError(f"{self.seat.home} holds a peer of another training: choose another --out")
        network = self.seat.job.network
        set_weights(network.model, weights_of(load_checkpoint(self.seat.home).model), str(self.seat.home))
        restore_optimizer(self._optimizer, saved.optimizer)
        self.step = saved.step
        for peer in (p for p in self.seat.others if f"{p}/step" in saved.state):
            self._hold(peer, int(saved.state[f"{peer}/step"]), below(f"{peer}/weights", saved.state))
