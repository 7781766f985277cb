"""Runs one distillation from options to a saved student: the shell around teacher, pictures and trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ConfigError
from host_trainer.backbones.networks import backbone_of, with_head
from host_trainer.backbones.weights import RANDOM
from host_trainer.datasets.augmentation import MIXUP, Augmentation
from host_trainer.datasets.batches import batch_indices, steps_of
from host_trainer.datasets.folders import Pictures, read_folder, read_unlabelled
from host_trainer.datasets.pixels import Pixels, Views, open_pixels
from host_trainer.distillation.losses import (
    IMAGES,
    LABELS,
    TARGETS,
    SoftConfig,
    feature_objective,
    logit_objective,
)
from host_trainer.distillation.projection import with_projection
from host_trainer.distillation.standard import standardised
from host_trainer.distillation.targets import Targets, open_targets
from host_trainer.distillation.teachers import Kind, Teacher, check_classes, open_teacher
from host_trainer.network import Network, to_input
from host_trainer.training.classification import accuracy
from host_trainer.training.gradients import Loss
from host_trainer.training.session import (
    PIXELS,
    OpenMeter,
    Say,
    check_out,
    decoded,
    finish,
    open_network,
    run_job,
    tell_refused,
)
from host_trainer.training.trainer import Job, Recipe

ANSWERS = "answers"  # folder inside --out for what the teacher said, when no other cache is named


class Part(NamedTuple):
    """Pictures of one kind, and how many views of each are taken."""

    folder: Path
    views: int


@dataclass(frozen=True)
class Options:
    """What a person asks of a distillation; see `host-trainer distill --help` for each."""

    data: tuple[Part, ...]
    teachers: tuple[Path, ...]
    out: Path
    network: str
    match: Kind = Kind.FEATURES
    weights: str = RANDOM
    epochs: float = 20
    batch: int = 64
    rate: float = 2e-3
    temperature: float = 4.0
    hard: float = 0.1
    augment: tuple[str, ...] = ("flip",)
    seed: int = 0
    save_every: int = 500
    cache: Path | None = None
    events: Path | None = None


class Lesson(NamedTuple):
    """Pictures of one part with what a student is to say of each view.

    Attributes:
        pixels: (N, V, H, W, 3) at the student's size.
        targets: (N, V, C or D) float16.
    """

    pixels: Pixels
    targets: NDArray[np.float16]


class Lessons(NamedTuple):
    """Views of several parts as a source of batches: images, labels and targets by step.

    Attributes:
        parts: what there is to see.
        network: the student, for its input range.
        augmentation: of pictures and targets.
        batch: views a step.
        seed: of their order.
    """

    parts: tuple[Lesson, ...]
    network: Network
    augmentation: Augmentation
    batch: int
    seed: int

    @property
    def total(self) -> int:
        """How many views there are."""
        return sum(part.targets.shape[0] * part.targets.shape[1] for part in self.parts)

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """Return images (B, H, W, 3), labels (B,), -1 where there is none, and targets (B, C or D)."""
        chosen = batch_indices(self.total, self.batch, step, self.seed)
        places = [self._place(int(place)) for place in chosen]
        pixels = np.stack([part.pixels.values[picture, view] for part, picture, view in places])
        targets = np.stack([part.targets[picture, view] for part, picture, view in places])
        labels = [part.pixels.pictures.labels[picture] for part, picture, _ in places]
        images, wanted = self.augmentation(pixels, targets.astype(np.float32), step)
        return {
            IMAGES: to_input(images, self.network.input_range),
            LABELS: np.array(labels, np.int32),
            TARGETS: wanted,
        }

    def _place(self, place: int) -> tuple[Lesson, int, int]:
        """Return part, picture and view of one of all views."""
        for part in self.parts:
            count, views = part.targets.shape[:2]
            if place < count * views:
                return part, *divmod(place, views)
            place -= count * views
        raise IndexError(place)


def distil(options: Options, open_meter: OpenMeter, say: Say) -> dict[str, Any]:
    """Train a student to answer as its teacher does, save it in `options.out`, return plain facts about it.

    Features are matched without labels, through a linear map that is thrown away; logits need the teacher's
    classes to be those of the folder.

    Raises:
        ConfigError, ModelError, MismatchError: what was asked cannot be done; the loss is no number any more.
        StoreError: the disk refuses.
        EngineError: no interpreter works here.
    """
    check_out(options.out, also=(ANSWERS,))
    _check(options)
    listed, test = _listed(options)
    backbone = open_network(options.network, options.weights, options.seed)
    # Refused, where they are, before a picture is read or the teacher is asked.
    augmentation, loss = Augmentation(options.augment, backbone.input_size, options.seed), _loss(options)
    views = sum(len(each.paths) * part.views for each, part in zip(listed, options.data, strict=True))
    recipe = _recipe(options, views)
    teacher = open_teacher(options.teachers, options.match)
    try:
        check_classes(teacher, listed[0].classes)
        parts = tuple(
            _lesson(pictures, part.views, teacher, backbone, options, open_meter, say)
            for pictures, part in zip(listed, options.data, strict=True)
        )
    finally:
        teacher.close()
    lessons = Lessons(parts, backbone, augmentation, options.batch, options.seed)
    recipe = replace(recipe, steps=steps_of(options.epochs, lessons.total, options.batch))
    facts = _facts(options, teacher, parts)
    job = Job(_student(backbone, teacher, options), loss, lessons.__call__, recipe, facts)
    student = run_job(job, options.out, open_meter, say, options.events)
    result = _kept(student, options)
    tested = _tested(result, test, options, open_meter, say)
    told = {"steps": recipe.steps, "views": lessons.total, **tested}
    finish(result, options.out, {"command": "distill", **facts, **told})
    return {
        "network": options.network,
        "out": str(options.out),
        "teacher": teacher.name,
        "match": options.match.value,
        "pictures": sum(len(part.pixels.values) for part in parts),
        "parameters": int(result.model.count_params()),
        **told,
        "refused": [line for part in parts for line in part.pixels.refused],
    }


def _loss(options: Options) -> Loss:
    if options.match is Kind.FEATURES:
        return feature_objective("squared")
    return logit_objective(SoftConfig(options.temperature, 1 - options.hard, options.hard))


def _recipe(options: Options, views: int) -> Recipe:
    return Recipe(
        steps=steps_of(options.epochs, views, options.batch),
        batch=options.batch,
        rate=options.rate,
        seed=options.seed,
        save_every=options.save_every,
    )


def _check(options: Options) -> None:
    if not options.data:
        raise ConfigError("no pictures: give --data DIR, once or more")
    if any(part.views < 1 for part in options.data):
        raise ConfigError("a picture has at least one view: give --data DIR:VIEWS with 1 or more")
    if options.match is Kind.LOGITS and len(options.data) > 1:
        raise ConfigError("logits are of the classes of one folder: give --data once, or --match features")
    if options.match is Kind.LOGITS and MIXUP in options.augment:
        raise ConfigError(
            "mixup mixes features, and labels have none to mix: leave it out, or --match features"
        )


def _listed(options: Options) -> tuple[tuple[Pictures, ...], Pictures | None]:
    if options.match is Kind.LOGITS:
        folder = read_folder(options.data[0].folder)
        return (folder.train,), folder.test
    return tuple(read_unlabelled([part.folder]) for part in options.data), None


def _lesson(
    pictures: Pictures,
    views: int,
    teacher: Teacher,
    student: Network,
    options: Options,
    open_meter: OpenMeter,
    say: Say,
) -> Lesson:
    """Decode one part at the student's size, and ask the teacher about it at the teacher's own."""
    cache = options.cache or options.out
    with open_meter(len(pictures.paths), "pictures") as meter:
        pixels = open_pixels(
            pictures,
            student.input_size,
            cache / PIXELS,
            views=views,
            seed=options.seed,
            watch=lambda done: meter.show(done, "reading pictures"),
        )
    tell_refused(pixels.refused, say)
    seen = Views(pixels.pictures, teacher.input_size, views, options.seed)
    targets = open_targets(teacher, seen, seen.key, cache / ANSWERS)
    _ask(targets, open_meter)
    answers = targets.all()
    return Lesson(pixels, standardised(answers) if teacher.kind is Kind.FEATURES else answers)


def _ask(targets: Targets, open_meter: OpenMeter) -> None:
    with open_meter(targets.total, "views") as meter:
        meter.begin(targets.known)
        targets.fill(lambda known: meter.show(known, "asking the teacher"))


def _student(backbone: Network, teacher: Teacher, options: Options) -> Network:
    if options.match is Kind.FEATURES:
        return backbone._replace(model=with_projection(backbone.model, teacher.size, options.seed))
    classes = read_folder(options.data[0].folder).train.classes
    return backbone._replace(model=with_head(backbone.model, len(classes), options.seed), classes=classes)


def _kept(student: Network, options: Options) -> Network:
    """Return what is shipped: the backbone without its projection, or the classifier."""
    return student if options.match is Kind.LOGITS else student._replace(model=backbone_of(student.model))


def _tested(
    network: Network, test: Pictures | None, options: Options, open_meter: OpenMeter, say: Say
) -> dict[str, Any]:
    if test is None or not test.paths:
        return {"test": 0, "test_accuracy": None}
    pixels = decoded(test, network, (options.cache or options.out) / PIXELS, open_meter, say)
    return {"test": len(pixels.values), "test_accuracy": accuracy(network, pixels)}


def _facts(options: Options, teacher: Teacher, parts: Sequence[Lesson]) -> dict[str, Any]:
    return {
        "network": options.network,
        "weights": options.weights,
        "teacher": teacher.name,
        "teacher_id": teacher.id,
        "match": options.match.value,
        "views": [part.targets.shape[1] for part in parts],
        "pictures": [len(part.pixels.values) for part in parts],
        "augment": list(options.augment),
        "temperature": options.temperature,
        "hard": options.hard,
    }
