"""Decides what becomes of each picture that is offered: taught, relabelled, skipped or refused."""

import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray
from PIL import Image

from edge_cl.device.folders import Picture, Refused
from edge_cl.errors import ImageError, LabelError
from edge_cl.memory.store import COMMIT_ROWS
from edge_cl.sample import label_key
from edge_cl.vision.frames import decode_image, read_bytes

if TYPE_CHECKING:
    from edge_cl.device.agent import Agent

HASH_BYTES = 16  # of the picture's SHA-256; enough to tell any number of pictures apart
MAX_KEPT_BYTES = 1_000_000  # of a picture that is kept as it came; larger ones are made smaller first
KEPT_SIDE_PX = 1024  # longer side of those; every backbone here takes less


@dataclass
class Taught:
    """What a run of teaching did; grows while it runs.

    Attributes:
        learned: samples acknowledged and learned, by label.
        relabelled: (file, label before, label now) of pictures known under another label.
        skipped: pictures that were known under this label already.
        refused: what could not be used, and why.
        judged: answers given before the sample was learned, where its class was known.
        right: those among them that were right.
        steps: SGD steps.
        was_stopped: ended early because it was asked to.
    """

    learned: Counter[str]
    relabelled: list[tuple[str, str, str]]
    refused: list[Refused]
    skipped: int = 0
    judged: int = 0
    right: int = 0
    steps: int = 0
    was_stopped: bool = False

    @property
    def accuracy_before_learning(self) -> float | None:
        """Share of right answers given before learning, None when there were none."""
        return self.right / self.judged if self.judged else None


class Seen(NamedTuple):
    """A picture that was embedded and is about to be kept."""

    label: str
    features: NDArray[Any]
    image_hash: bytes
    session: str
    source: str
    jpeg: bytes | None
    twin: NDArray[Any] | None = None  # of the space that may be returned to


class Run:
    """One call of `Agent.teach`: the pictures embedded but not kept yet, and what came of the others."""

    def __init__(self, agent: "Agent", views: int, mirror: bool, overrule: bool) -> None:
        self.taught = Taught(Counter(), [], [])
        self.batch: list[Seen] = []
        self._agent, self._views, self._mirror, self._overrule = agent, views, mirror, overrule
        self._labels: dict[bytes, str] = {}  # of the pictures of this run
        self._names: dict[str, str] = {}  # label_key -> spelling of classes first met in this run

    def take(self, picture: Picture) -> None:
        """Read one picture and decide what it is: new, known, contradicting, or unreadable."""
        agent = self._agent
        try:
            with agent.timings.count("decode_ms"):
                data = read_bytes(picture.path)
                image_hash = hash_of(data)
            label = self._spelling(picture.label)
            if not self._is_known(picture, label, image_hash):
                self._see(picture, label, data, image_hash)
            elif agent.settings.teaching.keep_jpeg:
                self._keep_picture(picture.path.name, data, image_hash)
        except (ImageError, LabelError) as error:
            reason = str(error).removeprefix(f"{picture.path.name}: ")
            self.taught.refused.append(Refused(str(picture.path), reason))

    def keep(self) -> None:
        """Acknowledge and learn what has been seen."""
        batch, self.batch = self.batch, []
        self._agent.keep(batch, self.taught)

    def _see(self, picture: Picture, label: str, data: bytes, image_hash: bytes) -> None:
        name = picture.path.name
        features, image = self._agent.embed_picture(data, name, self._views, self._mirror)
        jpeg = _kept(data, image) if self._agent.settings.teaching.keep_jpeg else None
        twin = self._agent.embed_twin(image, self._views, self._mirror)
        self.batch.append(Seen(label, features, image_hash, picture.session, name, jpeg, twin))
        self._labels[image_hash] = label
        if len(self.batch) >= COMMIT_ROWS:
            self.keep()

    def _keep_picture(self, name: str, data: bytes, image_hash: bytes) -> None:
        """Keep a known picture whose bytes were not kept when it was taught."""
        sample = self._agent.sample_of(image_hash)
        if sample is not None and self._agent.known(sample).is_live:
            self._agent.store.keep_jpeg(sample, _kept(data, decode_image(data, name)))

    def _is_known(self, picture: Picture, label: str, image_hash: bytes) -> bool:
        """Deal with a picture that was taught before; False when it is to be taught."""
        earlier = self._labels.get(image_hash)
        if earlier is not None:
            self._repeated(picture, label, earlier)
            return True
        sample = self._agent.sample_of(image_hash)
        if sample is None:
            return False
        known = self._agent.known(sample)
        if label != known.label and not known.is_live:
            return False  # nothing is left to correct: it is taught anew
        self._labels[image_hash] = known.label
        if label == known.label:
            self.taught.skipped += 1
        elif self._agent.is_corrected(sample) and not self._overrule:
            reason = f"was relabelled {known.label!r} since: `edge-cl relabel` it again if that was wrong"
            self.taught.refused.append(Refused(str(picture.path), reason))
        else:
            self._labels[image_hash] = label
            self._relabel(picture, sample, label)
        return True

    def _repeated(self, picture: Picture, label: str, earlier: str) -> None:
        if label == earlier:
            self.taught.skipped += 1
            return
        reason = f"the same picture is here as {earlier!r} too, and keeps that label: remove one of them"
        self.taught.refused.append(Refused(str(picture.path), reason))

    def _relabel(self, picture: Picture, sample: int, label: str) -> None:
        self.keep()  # the log's order is the order of what happened
        was = self._agent.relabel(sample, label)
        self.taught.relabelled.append((str(picture.path), was, label))

    def _spelling(self, label: str) -> str:
        name = self._agent.spelling(label)
        return self._names.setdefault(label_key(name), name)


def hash_of(data: bytes) -> bytes:
    """Return what a picture's bytes are known by."""
    return hashlib.sha256(data).digest()[:HASH_BYTES]


def _kept(data: bytes, image: Image.Image) -> bytes:
    """Return the bytes under which a picture is kept: its own, or a smaller JPEG."""
    if len(data) <= MAX_KEPT_BYTES:
        return data
    small = image.copy()
    small.thumbnail((KEPT_SIDE_PX, KEPT_SIDE_PX))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=90)
    return out.getvalue()
