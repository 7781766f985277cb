"""How long a task is learned where nobody says."""

from pathlib import Path

import numpy as np
import pytest

from host_trainer.datasets.examples import DataSet, Examples
from host_trainer.sparcl.options import Options
from host_trainer.sparcl.plan import usual_epochs
from host_trainer.sparcl.subject import new_subject

pytest.importorskip("keras", reason="the workshop's networks need keras")


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs"),
    [(10_000, 32, 5), (2_000, 32, 5), (192, 32, 50), (960, 32, 10), (8, 64, 50)],
)
def test_a_task_of_few_pictures_is_seen_more_often(pictures: int, batch: int, epochs: int) -> None:
    assert usual_epochs(pictures, batch) == epochs


@pytest.mark.parametrize(("asked", "epochs"), [(None, 25), (3, 3)])
def test_a_training_takes_the_usual_epochs_of_its_tasks_or_those_it_is_told(
    asked: int | None, epochs: int
) -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), 48)  # two tasks of 96, twelve steps each
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    part = Examples(images, labels, np.zeros(len(labels), np.int32))
    data = DataSet("drawn", tuple("abcd"), (), part, part)
    options = Options(
        "drawn", Path("out"), network="resnet18:0.1/8", method="er", tasks=2, batch=8, epochs=asked
    )
    assert new_subject(options, lambda size, least: data).plan.epochs == epochs
