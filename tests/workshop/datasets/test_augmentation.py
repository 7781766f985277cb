"""Augmentation by name: repeatable by (seed, step), inside the range, and it does what its name says."""

import numpy as np
import pytest

from edge_cl.errors import ConfigError
from host_trainer.datasets.augmentation import NAMES, Augmentation

SIZE = (24, 32)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (6, 8, 8, 3)).repeat(3, 1).repeat(4, 2)).astype(np.uint8)


@pytest.fixture(scope="module")
def targets() -> np.ndarray:
    return np.eye(6, dtype=np.float32)


def test_every_name_is_known() -> None:
    assert NAMES == ("flip", "crop", "colour", "rotation", "cutout", "noise", "mixup")


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_and_step_give_the_same_pictures(name: str, images, targets) -> None:
    change = Augmentation([name], SIZE, seed=3)
    first = [change(images, targets, step)[0] for step in (0, 1)]
    later = Augmentation([name], SIZE, seed=3)
    again = [later(images, targets, step)[0] for step in (1, 0)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("name", NAMES)
def test_pictures_stay_pictures(name: str, images, targets) -> None:
    changed, wanted = Augmentation([name], SIZE)(images, targets, 7)
    assert (changed.shape, changed.dtype) == (images.shape, np.float32)
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.allclose(wanted.sum(1), 1)


def test_no_names_change_nothing(images, targets) -> None:
    changed, wanted = Augmentation([], SIZE)(images, targets, 0)
    assert np.abs(changed - images).max() < 1e-3
    assert wanted is targets


def test_a_flip_mirrors_or_leaves(images, targets) -> None:
    changed, _ = Augmentation(["flip"], SIZE)(images, targets, 2)
    as_was = np.abs(changed - images).max(axis=(1, 2, 3)) < 1e-3
    mirrored = np.abs(changed - images[:, :, ::-1]).max(axis=(1, 2, 3)) < 1e-3
    assert np.all(as_was | mirrored)
    assert as_was.any()
    assert mirrored.any()


def test_mixup_mixes_targets_as_it_mixes_pictures(images, targets) -> None:
    changed, wanted = Augmentation(["mixup"], SIZE)(images, targets, 1)
    assert np.allclose(changed, np.tensordot(wanted, images.astype(np.float32), 1), atol=0.01)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="'swirl' changes no pictures: give some of flip"):
        Augmentation(["flip", "swirl"], SIZE)
