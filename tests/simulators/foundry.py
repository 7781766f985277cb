"""A fleet in the workshop: its folder, pictures that are drawn, devices that see them and tell of them."""

import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from simulators.devices import Device

from edge_cl.learning.config import LearnerConfig
from edge_cl.sample import FeatureSpace
from edge_cl.vision.backbone import open_backbone
from edge_cl.vision.preprocess import views
from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.labels import Edits
from edge_cl.wire.messages import Images, Message
from host_trainer.release.folder import RepositoryFolder
from host_trainer.release.keyring import Keyring
from host_trainer.retraining.contents import FolderContents, Silence
from host_trainer.retraining.heads import HeadConfig
from host_trainer.retraining.job import Options, World
from host_trainer.retraining.samples import Samples
from host_trainer.retraining.session import retrain

KINDS = ("disc", "square", "stripes")
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=timezone.utc)
VIEWS = 2
HEAD = HeadConfig(LearnerConfig(views=VIEWS))
OLD, NEW = KINDS[:2], KINDS[2]
EACH, ASKED = 14, 12  # pictures of a class that the host has, and that it judges by


def draw(kind: str, number: int, size: int = 48) -> Image.Image:
    """Draw one picture: a shape on a noisy ground, not always easy to tell."""
    rng = np.random.default_rng((KINDS.index(kind), number))
    y, x = np.mgrid[:size, :size] / size - rng.uniform(0.4, 0.6, (2, 1, 1))
    shape = {
        "disc": x**2 + y**2 < 0.06,
        "square": np.maximum(abs(x), abs(y)) < 0.25,
        "stripes": np.sin(40 * x) > 0,
    }[kind]
    pixels = rng.integers(0, 60, (size, size, 3)) + 150 * shape[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


class Nobody:
    """Hears how far a task is, and tells nobody."""

    def begin(self, done: float) -> None: ...

    def show(self, done: float, words: str = "", size: int = 1) -> None: ...


@contextmanager
def no_meter(total: int, unit: str) -> Iterator[Nobody]:
    yield Nobody()


class Fleet(NamedTuple):
    """A fleet's folder, what releases are judged by, and the space of its features."""

    folder: Path
    held_out: Path
    backbone: Path
    space: FeatureSpace

    def world(self, contents: Path | None = None, registry: Edits = ()) -> World:
        """Return the world of a retraining that hears contents in a folder."""
        place = RepositoryFolder(self.folder)
        heard = FolderContents(contents, registry) if contents else Silence()
        return World(
            NOW, place, Keyring(place.key_folders(), lambda words: b""), heard, no_meter, lambda line: None
        )

    def options(self, **chosen: Any) -> Options:
        return Options(self.folder, "waste", head=HEAD, **chosen)

    def retrain(self, contents: Path, registry: Edits = (), **chosen: Any) -> dict[str, Any]:
        return retrain(self.options(**chosen), self.world(contents, registry))

    def copy(self, folder: Path) -> "Fleet":
        shutil.copytree(self.folder, folder)
        return self._replace(folder=folder)

    def device(self, name: str) -> Device:
        return Device(name, rank=16, space=self.space)

    def samples(self, device: str, kinds: Sequence[str], each: int, start: int) -> Samples:
        """Return what a device sees of some kinds of pictures: numbers `start` and up of each."""
        found = []
        with open_backbone(self.backbone) as backbone:
            for kind in kinds:
                for number in range(start, start + each):
                    pixels = views(draw(kind, number), VIEWS, backbone.input_size)
                    found.append(backbone.embed_many(pixels))
        labels = tuple(kind for kind in kinds for _ in range(each))
        numbers = np.arange(1, len(labels) + 1, dtype=np.int64)
        return Samples(np.stack(found), labels, (device,) * len(labels), numbers)


def send(folder: Path, *messages: Message) -> None:
    """Put contents into a folder in the order given, as the server would hand them on."""
    folder.mkdir(exist_ok=True)
    for message in messages:
        name = f"{len(list(folder.iterdir())):04d}-{content_id(message)[:8]}.content"
        (folder / name).write_bytes(canonical(message))


def jpeg(picture: Image.Image) -> bytes:
    """Return a picture as a device keeps it."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95)
    return out.getvalue()


def pictures_of(device: str, label: str, files: Sequence[bytes]) -> Images:
    """Return JPEG files of one class, samples 1 and up, as the message that carries them."""
    sizes, numbers = np.array([len(each) for each in files], np.int32), np.zeros(len(files), np.int32)
    samples = np.arange(1, len(files) + 1)
    return Images(device, 0, (label,), samples, numbers, sizes, np.frombuffer(b"".join(files), np.uint8))
