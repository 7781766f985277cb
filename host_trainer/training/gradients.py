"""One training step on whichever backend Keras runs on: the loss is written once, in `keras.ops`.

TensorFlow keeps the numbers in the model and changes them in place; JAX passes them through a pure function.
A `Stepper` hides which, and nothing else: no loop, no data, no disk.
"""

import gc
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from edge_cl.errors import EngineError
from host_trainer.training.normalisation import fused
from host_trainer.training.workers import Workers, heard

Batch = Mapping[str, np.ndarray]
Loss = Callable[["Call", Mapping[str, Any]], tuple[Any, dict[str, Any]]]  # (call, batch) -> (loss, more)
Told = dict[str, Any]  # scalars as float, the rest as numpy arrays
FOLLOW = "follow"  # in a batch: (F,) how far each follower goes towards the model after this step


class Call:
    """Runs the network inside of a loss: `call(images, training=True)`.

    `followers` answer without training: `call.followers[0](images)`; no gradient reaches them.
    """

    def __init__(self, run: Callable[..., Any], followers: Sequence[Callable[[Any], Any]] = ()) -> None:
        self._run, self.followers = run, tuple(followers)

    def __call__(self, images: Any, training: bool = False) -> Any:
        """Return the network's answer."""
        return self._run(images, training=training)


class Stepper(Protocol):
    """Trains one model by one loss. The model's variables are true after `settle` only."""

    def step(self, batch: Batch) -> Told:
        """Change the weights once; return `loss` and what else the loss function told."""
        ...

    def guard(self, masks: Mapping[str, np.ndarray]) -> None:
        """Let gradients of these guarded variables, by path, pass where the mask is 1; nothing retraces."""
        ...

    def settle(self) -> None:
        """Write the weights, statistics and optimizer state back into the Keras objects."""
        ...

    def resume(self) -> None:
        """Take weights, statistics and optimizer state from the Keras objects, which were changed."""
        ...


def open_stepper(
    model: Any,
    optimizer: Any,
    loss: Loss,
    *,
    jit: bool | None = None,
    guarded: Collection[str] = (),
    followers: Sequence[Any] = (),
    workers: Workers | None = None,
    whole: Collection[str] = (),
) -> Stepper:
    """Return the stepper of the backend that Keras runs on.

    Args:
        model: functional Keras model, built.
        optimizer: a Keras optimizer; gets the model's trainable variables.
        loss: `(call, batch) -> (loss, scalars)` in keras.ops; `call(images, training=...)` runs the network.
        jit: compile with XLA. By default where it pays: on JAX always, on TensorFlow with a GPU. XLA's
            depthwise convolutions on a CPU take six times as long as TensorFlow's own.
        guarded: paths of variables whose gradients are multiplied by a mask, which is all ones until `guard`.
        followers: models of the same graph whose variables move towards this one's of the same path after
            each step, by `batch["follow"]`: exponential averages of the weights. No gradient reaches them.
        workers: the processes that share each batch; each of them calls `step` with all of it.
        whole: what of a batch is no row for each sample, by name; `follow` never is.

    Raises:
        EngineError: Keras runs on a backend that this trainer does not know.
    """
    import keras

    backend = keras.backend.backend()
    optimizer.build(model.trainable_variables)
    if backend == "tensorflow":
        shared = (workers, {FOLLOW, *whole}) if workers else None
        return _TensorFlowStepper(model, optimizer, loss, jit, guarded, followers, shared)
    if backend == "jax":
        return _JaxStepper(model, optimizer, loss, guarded, followers)
    raise unknown_backend(backend)


def unknown_backend(name: str) -> EngineError:
    """Return the error for a backend that this trainer does not know."""
    return EngineError(f"Keras runs on {name}: set KERAS_BACKEND to tensorflow or jax")


class _TensorFlowStepper:
    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Loss,
        jit: bool | None,
        guarded: Collection[str],
        followers: Sequence[Any],
        shared: tuple[Workers, Collection[str]] | None = None,
    ) -> None:
        import tensorflow as tf

        if jit is None:
            jit = bool(tf.config.list_physical_devices("GPU")) and shared is None
        trained = model.trainable_variables
        self._masks = {v.path: tf.Variable(tf.ones(v.shape)) for v in trained if v.path in guarded}
        masks = [self._masks.get(variable.path) for variable in trained]
        led = {variable.path: variable for variable in model.variables}
        pairs = [[(mine, led[mine.path]) for mine in follower.variables] for follower in followers]
        call = Call(model, [partial(follower, training=False) for follower in followers])

        def judge(batch: dict[str, Any]) -> tuple[Any, dict[str, Any], list[Any]]:
            values = [variable.value for variable in trained]
            with tf.GradientTape(watch_accessed_variables=False) as tape, fused(model):
                tape.watch(values)
                value, more = loss(call, batch)
            return value, more, tape.gradient(value, values)

        def step(batch: dict[str, Any]) -> dict[str, Any]:
            told = shared[0].judged(judge, batch, model) if shared else judge(batch)
            value, more, gradients = told
            optimizer.apply(_masked(gradients, masks), trained)
            for number, follower in enumerate(pairs):
                for mine, other in follower:
                    mine.assign(mine + batch[FOLLOW][number] * (other - mine))
            return {"loss": value, **more}

        # Shapes are those of the first batch; a last, shorter one traces once more.
        self._compiled = partial(tf.function, step, jit_compile=jit, reduce_retracing=True)
        self._step, self._names = self._compiled(), frozenset[str]()
        self._tensor, self._shared = tf.convert_to_tensor, shared

    def step(self, batch: Batch) -> Told:
        if self._shared is None:
            return self._stepped(batch)
        workers, whole = self._shared
        with heard():
            return self._stepped(workers.part(batch, whole))

    def _stepped(self, batch: Batch) -> Told:
        if batch.keys() != self._names:
            # What was traced for other batches, as those before there is a memory, holds tens of megabytes.
            self._step, self._names = self._compiled(), frozenset(batch)
            gc.collect()
        return _plain(self._step({name: self._tensor(values) for name, values in batch.items()}))

    def guard(self, masks: Mapping[str, np.ndarray]) -> None:
        for path, mask in masks.items():
            self._masks[path].assign(np.asarray(mask, np.float32))

    def settle(self) -> None:
        pass  # the variables are changed in place

    def resume(self) -> None:
        pass


class _JaxStepper:
    def __init__(
        self, model: Any, optimizer: Any, loss: Loss, guarded: Collection[str], followers: Sequence[Any]
    ) -> None:
        import jax

        self._model, self._optimizer, self._followers = model, optimizer, followers
        paths = [variable.path for variable in model.trainable_variables]
        others = [variable.path for variable in model.non_trainable_variables]
        kept = [variable.path for variable in followers[0].non_trainable_variables] if followers else []
        self._masks: dict[str, Any] = {
            v.path: np.ones(tuple(v.shape), np.float32)
            for v in model.trainable_variables
            if v.path in guarded
        }

        def judged(trained: Any, other: Any, following: Any, batch: Any) -> Any:
            state = [other]

            def run(images: Any, training: bool = False) -> Any:
                out, changed = model.stateless_call(trained, state[0], images, training=training)
                state[0] = changed if training else state[0]
                return out

            answers = [partial(_answer, *pair) for pair in zip(followers, following, strict=True)]
            value, more = loss(Call(run, answers), batch)
            return value, (more, state[0])

        graded = jax.value_and_grad(judged, has_aux=True)

        def step(masks: Any, trained: Any, other: Any, moments: Any, following: Any, batch: Any) -> Any:
            (value, (more, other)), gradients = graded(trained, other, following, batch)
            gradients = _masked(gradients, [masks.get(path) for path in paths])
            trained, moments = optimizer.stateless_apply(moments, gradients, trained)
            untrained = dict(zip(others, other, strict=True))
            led = trained, [untrained[path] for path in kept]
            following = [
                [
                    _nearer(mine, theirs, batch[FOLLOW][number])
                    for mine, theirs in zip(follower, led, strict=True)
                ]
                for number, follower in enumerate(following)
            ]
            return {"loss": value, **more}, trained, other, moments, following

        self._step = jax.jit(step, donate_argnums=(1, 2, 3, 4))
        self._state: list[Any] = []
        self.resume()

    def step(self, batch: Batch) -> Told:
        told, *self._state = self._step(self._masks, *self._state, dict(batch))
        return _plain(told)

    def guard(self, masks: Mapping[str, np.ndarray]) -> None:
        self._masks |= {path: np.asarray(mask, np.float32) for path, mask in masks.items()}

    def settle(self) -> None:
        *state, following = self._state
        values = [*state, *[part for follower in following for part in follower]]
        for variables, numbers in zip(self._variables(), values, strict=True):
            for variable, number in zip(variables, numbers, strict=True):
                variable.assign(number)

    def resume(self) -> None:
        # Copies: the step gives its inputs' memory to its outputs.
        groups = [[np.array(variable.value) for variable in variables] for variables in self._variables()]
        parts = groups[3:]
        self._state = [*groups[:3], [parts[at : at + 2] for at in range(0, len(parts), 2)]]

    def _variables(self) -> list[list[Any]]:
        model, following = self._model, []
        for follower in self._followers:
            following += [follower.trainable_variables, follower.non_trainable_variables]
        return [
            model.trainable_variables,
            model.non_trainable_variables,
            self._optimizer.variables,
            *following,
        ]


def _masked(gradients: Sequence[Any], masks: Sequence[Any]) -> list[Any]:
    return [g if mask is None else g * mask for g, mask in zip(gradients, masks, strict=True)]


def _nearer(mine: Sequence[Any], theirs: Sequence[Any], share: Any) -> list[Any]:
    return [m + share * (t - m) for m, t in zip(mine, theirs, strict=True)]


def _answer(model: Any, weights: Sequence[Any], images: Any) -> Any:
    return model.stateless_call(*weights, images, training=False)[0]


def _plain(told: Mapping[str, Any]) -> Told:
    arrays = {name: np.asarray(value) for name, value in told.items()}
    return {name: value if value.ndim else float(value) for name, value in arrays.items()}


def open_forward(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return the model's answer without training, compiled: (B, H, W, 3) float32 to (B, D) float32.

    It reads the Keras variables at every call; keep B the same, each size is compiled once.

    Raises:
        EngineError: Keras runs on a backend that this trainer does not know.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        run = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        return lambda images: np.asarray(run(tf.convert_to_tensor(images)))
    if backend == "jax":
        import jax

        answer = jax.jit(partial(_answer, model))

        def forward(images: np.ndarray) -> np.ndarray:
            groups = (model.trainable_variables, model.non_trainable_variables)
            return np.asarray(answer([[v.value for v in group] for group in groups], images))

        return forward
    raise unknown_backend(backend)


def predict(model: Any, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """Run a network on (N, H, W, 3) float32 images, `batch` at a time: (N, D) float32."""
    import keras

    parts = [images[at : at + batch] for at in range(0, len(images), batch)]
    return np.concatenate([keras.ops.convert_to_numpy(model(part, training=False)) for part in parts])
