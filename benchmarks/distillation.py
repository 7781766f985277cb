"""Distillation: a student that hears a TFLite teacher beside its labels, against the same from labels alone.

Claim: the distilled student names at least 2 points more of unseen pictures, mean of 3 seeds.

Method: CIFAR-10 at 32 px, 200 pictures of each class to learn from, 500 to ask about (a lossy copy: the
teacher reaches 0.755 on all of it, not its published 0.85). Teacher: MLPerf Tiny's int8 ResNet-8, run by
LiteRT, its logits cut before the softmax; it was trained on all of CIFAR-10, so it knows more than the
student is shown. Student: the separable net at half width. Both arms: same pictures and labels, same 32 views
of each (cropped and mirrored; the teacher is asked about each view), same first weights, order, recipe and
steps; a seed changes all of them together. Teacher weighs 0.9, labels 0.1, T = 4: the defaults of
`host-trainer distill`, not chosen for this.

Views and steps were chosen on 100 more pictures of each class of the training part and another seed: with 8
views and 2,000 steps labels alone reached 0.446 there and the distilled student 0.455, with 32 and 4,000 it
was 0.498 and 0.538, and 8,000 is the next doubling. What that still brings is told beside the claim. Nothing
was chosen by the pictures that are asked about.

Expected: 5 points; the distilled student would gain from still more steps. Expected time: 30 minutes on one
core.

    python benchmarks/distillation.py [--seeds 3] [--steps 8000] [--write]
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cifar
import ledger
import numpy as np

from host_trainer.datasets.pixels import Pixels

SPEC = "separable:0.5/32"
PER_CLASS, HELD, ASKED = 200, 100, 500  # pictures of each class: to learn from, to choose by, to ask about
VIEWS = 32  # of each picture: itself, and cropped and perhaps mirrored
BATCH, STEPS = 64, 8000
TEMPERATURE = 4.0
TARGET_POINTS = 2.0
ARMS = {"labels": (0.0, 1.0), "distilled": (0.9, 0.1)}  # weights of teacher and labels


class Reached(NamedTuple):
    """Accuracy of one training: on pictures that are asked about, and on those held out to choose by."""

    test: float
    held: float


class Data(NamedTuple):
    """Pictures with their views: to learn from, to choose by, to ask about."""

    train: Pixels
    held: Pixels
    test: Pixels


def load() -> Data:
    """Return the pictures; the held-out ones follow those to learn from, class by class."""
    found = cifar.load(PER_CLASS + HELD, ASKED)
    places = np.arange(len(found.train.values)).reshape(-1, PER_CLASS + HELD)
    train, held = (
        found.train._replace(values=found.train.values[at], pictures=found.train.pictures.at(at))
        for at in (places[:, :PER_CLASS].ravel(), places[:, PER_CLASS:].ravel())
    )
    return Data(train._replace(values=seen(train.values[:, 0])), held, found.test)


def seen(pixels: np.ndarray) -> np.ndarray:
    """Return VIEWS of each picture, itself first: (N, H, W, 3) uint8 to (N, V, H, W, 3) uint8."""
    from host_trainer.datasets.augmentation import Augmentation

    change = Augmentation(("crop", "flip"), pixels.shape[1:3])
    others = [change(pixels, np.zeros(0), view)[0].astype(np.uint8) for view in range(1, VIEWS)]
    return np.stack([pixels, *others], axis=1)


class Student:
    """The student, compiled once and trained anew for each arm and seed."""

    def __init__(self, steps: int, data: Data, cache: Path) -> None:
        """Build the network and ask the teacher about every view."""
        import keras

        from host_trainer.backbones.networks import build, parse_spec, with_head
        from host_trainer.distillation.targets import open_targets
        from host_trainer.distillation.teachers import Kind, check_classes, open_teacher
        from host_trainer.network import Network
        from host_trainer.training.gradients import open_stepper
        from host_trainer.training.trainer import Recipe, make_optimizer

        classes = data.train.pictures.classes
        self.data, self.steps = data, steps
        self.draw = lambda seed: with_head(build(parse_spec(SPEC), seed), len(classes), seed)
        self.network = Network(self.draw(0), classes)
        self.optimizer = make_optimizer(Recipe(steps=steps, batch=BATCH))
        self.stepper = open_stepper(self.network.model, self.optimizer, _both_arms)
        self.first = [np.asarray(variable.value).copy() for variable in self.optimizer.variables]
        teacher = open_teacher([cifar.data_folder() / cifar.TEACHER], Kind.LOGITS)
        check_classes(teacher, classes)
        self.targets = open_targets(teacher, data.train.values, f"cifar {PER_CLASS} crop flip {VIEWS}", cache)
        self.targets.fill()
        said = teacher.targets(data.test.values[:, 0])
        self.teacher_accuracy = float(np.mean(said.argmax(1) == data.test.pictures.labels))
        teacher.close()
        keras.utils.disable_interactive_logging()

    def trained(self, arm: str, seed: int) -> Reached:
        """Train one arm from a seed's first weights."""
        from host_trainer.training.classification import accuracy

        self.network.model.set_weights(self.draw(seed).get_weights())
        for variable, value in zip(self.optimizer.variables, self.first, strict=True):
            variable.assign(value)
        for step in range(self.steps):
            self.stepper.step(self._batch(step, arm, seed))
        self.optimizer.finalize_variable_values(self.network.model.trainable_variables)
        return Reached(*(accuracy(self.network, part) for part in (self.data.test, self.data.held)))

    def _batch(self, step: int, arm: str, seed: int) -> dict[str, Any]:
        from host_trainer.datasets.batches import batch_indices
        from host_trainer.network import to_input

        train = self.data.train
        chosen = batch_indices(len(train.values), BATCH, step, seed)
        views = np.random.default_rng((seed, step)).integers(0, VIEWS, BATCH)
        soft, hard = ARMS[arm]
        return {
            "images": to_input(train.values[chosen, views], self.network.input_range),
            "labels": train.pictures.labels[chosen],
            "targets": self.targets.of(chosen, views),
            "soft": np.float32(soft),
            "hard": np.float32(hard),
        }


def _both_arms(call: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Weigh the two losses as the batch says, so that both arms share one compiled step."""
    from host_trainer.distillation.losses import hard_loss, soft_loss

    logits = call(batch["images"], training=True)
    hard, soft = hard_loss(logits, batch["labels"]), soft_loss(logits, batch["targets"], TEMPERATURE)
    return batch["hard"] * hard + batch["soft"] * soft, {"hard": hard, "soft": soft}


def verdicts(reached: Mapping[str, list[Reached]], teacher: float) -> list[ledger.Row]:
    """Hold the accuracies of both arms, one a seed, against the claim."""
    labels, distilled = ([each.test for each in reached[arm]] for arm in ("labels", "distilled"))
    gains = [100 * (d - a) for d, a in zip(distilled, labels, strict=True)]
    return [
        ledger.Row("teacher, int8 ResNet-8 in LiteRT", f"{teacher:.3f}"),
        ledger.Row("student from labels alone", cifar.mean_std(labels)),
        ledger.Row("student from labels and teacher", cifar.mean_std(distilled)),
        ledger.at_least("points gained, mean of seeds", float(np.mean(gains)), TARGET_POINTS, 1),
        ledger.at_least("points gained, worst seed", min(gains), TARGET_POINTS, 1),
    ]


def doublings(half: Mapping[str, Reached], whole: Mapping[str, Reached]) -> list[ledger.Row]:
    """Tell what the second half of the steps brought each arm on the held-out pictures, by one seed."""
    return [
        ledger.Row(
            f"{arm}, held-out pictures of one seed: half the steps, all of them",
            f"{half[arm].held:.3f}, {whole[arm].held:.3f}",
        )
        for arm in ARMS
    ]


def measured(student: Student, seeds: range) -> dict[str, list[Reached]]:
    """Train every arm by every seed."""
    reached: dict[str, list[Reached]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        for arm, found in reached.items():
            found.append(student.trained(arm, seed))
            print(
                f"{student.steps} steps, seed {seed}, {arm}: {found[-1].test:.3f}",
                file=sys.stderr,
                flush=True,
            )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="first weights and orders (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, metavar="N", help="of each training (%(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="put the rows into the ledger")
    args = parser.parse_args()
    data = load()
    with tempfile.TemporaryDirectory(prefix="edge-cl-") as folder:
        half = measured(Student(args.steps // 2, data, Path(folder)), range(1))
        student = Student(args.steps, data, Path(folder))
        reached = measured(student, range(args.seeds))
    firsts = [{arm: found[0] for arm, found in each.items()} for each in (half, reached)]
    rows = [*verdicts(reached, student.teacher_accuracy), *doublings(*firsts)]
    ledger.show("distillation", rows)
    if args.write:
        command = f"python benchmarks/distillation.py --seeds {args.seeds} --steps {args.steps} --write"
        words = (
            f"{10 * PER_CLASS} pictures in {VIEWS} views, {args.steps} steps of {BATCH}, {args.seeds} seeds"
        )
        ledger.write("distillation", command, [f"{SPEC}, {words}.", "", *ledger.rows_table(rows)])


if __name__ == "__main__":
    cifar.on_one_core()
    main()
