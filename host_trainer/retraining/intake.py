"""Decides which contents may be learned from: each is found sound, or set aside with a reason.

What a device says is believed only as far as it is possible at all. Devices are held against each other
elsewhere (`suspicion`); here a second look is taken at them only to find a sample that came twice.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_cl.errors import ImageError, ProtocolError
from edge_cl.sample import FeatureSpace, label_key
from edge_cl.vision.frames import decode_image, image_hash
from edge_cl.wire import codec
from edge_cl.wire.labels import Edits, followed
from edge_cl.wire.messages import CONTENTS, Features, Images, Statistics
from host_trainer.retraining.contents import ContentKey, Received
from host_trainer.retraining.samples import Samples, joined, with_views
from host_trainer.retraining.told import Told, impossible, taken_in

SampleKey = tuple[str, int]  # device, number
FREE_EACH = 100  # samples of a class and device that no cap touches


class Picture(NamedTuple):
    """A picture that a device sent: whose, its number there, its class, and the hash of its file."""

    device: str
    number: int
    label: str
    sha256: str


Keep = Callable[[str, bytes], None]  # takes a picture's hash and its JPEG file, as soon as it is found sound


class Known(NamedTuple):
    """What the incumbent was made of.

    Attributes:
        told: {device: all that it told}.
        samples: of the devices.
        contents: hashes of what was learned from.
        pictures: hashes of the devices' pictures.
        registry: version of the label registry that the samples' labels follow.
    """

    told: Mapping[str, Told]
    samples: Samples
    contents: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()
    registry: int = 0


class Sound(NamedTuple):
    """What may be learned from, and what may not.

    Attributes:
        told: {device: all that it told}.
        changed: devices that told something new.
        samples: of the devices, old ones first; labels as after the last edit of the registry.
        fresh: (N,) which are new.
        pictures: new ones.
        accepted: contents that are part of this and were not part of what was known.
        aside: {content: why it is not, and will not be}.
        waiting: {content: why it is not yet}.
        impossible: {device: why} where no samples can have led to what it told.
        withdrawn: samples that devices had destroyed.
        notes: what was left out of accepted contents, in words.
    """

    told: Mapping[str, Told]
    changed: tuple[str, ...]
    samples: Samples
    fresh: NDArray[np.bool_]
    pictures: tuple[Picture, ...]
    accepted: tuple[ContentKey, ...]
    aside: Mapping[ContentKey, str]
    waiting: Mapping[ContentKey, str]
    impossible: Mapping[str, str]
    withdrawn: frozenset[SampleKey]
    notes: tuple[str, ...]


def sifted(
    received: Iterable[Received], known: Known, space: FeatureSpace, views: int, edits: Edits, keep: Keep
) -> Sound:
    """Check contents in the order in which they came, and add the sound ones to what is known.

    Args:
        received: all that there is; what was learned from before, and what comes twice, changes nothing.
        known: what the incumbent was made of.
        space: of its features.
        views: of a sample.
        edits: the fleet's registry of classes.
        keep: is given the pictures, which are too many to be held.
    """
    sieve = _Sieve(known, space, views, edits, keep)
    for content in received:
        sieve.take(content)
    return sieve.sound()


def without(sound: Sound, suspects: Mapping[str, str]) -> Sound:
    """Return what is left when devices are not believed: {device: why}; nothing of theirs stays."""
    kept = np.array([device not in suspects for device in sound.samples.devices], bool)
    accused = {key: suspects[key[0]] for key in sound.accepted if key[0] in suspects}
    return sound._replace(
        told={device: told for device, told in sound.told.items() if device not in suspects},
        changed=tuple(device for device in sound.changed if device not in suspects),
        samples=sound.samples.at(kept),
        fresh=sound.fresh[kept],
        pictures=tuple(each for each in sound.pictures if each.device not in suspects),
        accepted=tuple(key for key in sound.accepted if key not in accused),
        aside={**sound.aside, **accused},
    )


def capped(samples: Samples, cap: float) -> NDArray[np.bool_]:
    """Return (N,) which samples are kept so that no device has more than `cap` of a class others have, too.

    FREE_EACH of a class are always kept, and of a device the newest.
    """
    kept = np.zeros(len(samples), bool)
    for devices in _grouped(samples).values():
        total = sum(map(len, devices.values()))
        for places in devices.values():
            others = total - len(places)
            most = max(FREE_EACH, int(cap / (1 - cap) * others)) if others and cap < 1 else len(places)
            kept[places[:most]] = True
    return kept


def _grouped(samples: Samples) -> dict[str, dict[str, list[int]]]:
    """Return where samples are, the newest first, by class and device."""
    groups: dict[str, dict[str, list[int]]] = {}
    for place in np.argsort(-samples.numbers, kind="stable"):
        of_class = groups.setdefault(label_key(samples.labels[place]), {})
        of_class.setdefault(samples.devices[place], []).append(int(place))
    return groups


def within(samples: Samples, most: int) -> NDArray[np.bool_]:
    """Return (N,) which samples are kept where there is room for `most`.

    Every class gets an equal part, of a class every device, of a device the newest; what one does not need
    goes to the others.
    """
    groups = _grouped(samples)
    kept = np.zeros(len(samples), bool)
    sizes = [sum(map(len, devices.values())) for devices in groups.values()]
    for share, devices in zip(_shared(sizes, most), groups.values(), strict=True):
        for count, places in zip(
            _shared(list(map(len, devices.values())), share), devices.values(), strict=True
        ):
            kept[places[:count]] = True
    return kept


def _shared(wanted: list[int], there_is: int) -> list[int]:
    """Share out as evenly as possible, nobody getting more than is wanted."""
    found = [0] * len(wanted)
    for done, place in enumerate(sorted(range(len(wanted)), key=lambda i: (wanted[i], i))):
        found[place] = min(wanted[place], there_is // (len(wanted) - done))
        there_is -= found[place]
    return found


class _Sieve:
    """Gathers what is sound, one content after the other."""

    def __init__(self, known: Known, space: FeatureSpace, views: int, edits: Edits, keep: Keep) -> None:
        self._known, self._space, self._views, self._edits, self._keep = known, space, views, edits, keep
        self._newest = edits[-1].version if edits else 0
        self._told, self._changed = dict(known.told), dict[str, None]()
        self._done: set[ContentKey] = set()
        old = known.samples
        labels = self._named(old.labels, old.devices, old.numbers.tolist(), known.registry)
        self._parts = [Samples(old.features, labels, old.devices, old.numbers)]
        self._features = {_hash(features) for features in old.features}
        self._pictures: dict[str, Picture] = {}
        self._accepted: list[ContentKey] = []
        self._aside: dict[ContentKey, str] = {}
        self._waiting: dict[ContentKey, str] = {}
        self._impossible: dict[str, str] = {}
        self._withdrawn: set[SampleKey] = set()
        self._notes: list[str] = []

    def take(self, content: Received) -> None:
        """Take a content in, or set it aside."""
        key = (content.device, content.id)
        if key in self._done or content.id in self._known.contents:
            return
        self._done.add(key)
        try:
            message = _read(content)
            reason = self._too_early(message)
            if reason:
                self._waiting[key] = reason
                return
            if isinstance(message, Statistics):
                self._take_statistics(message, content.id)
            elif isinstance(message, Features):
                self._take_features(message)
            else:
                self._take_images(message)
        except ProtocolError as error:
            self._aside[key] = str(error)
        else:
            self._accepted.append(key)

    def sound(self) -> Sound:
        """Return what was gathered."""
        found = joined(self._parts)
        fresh = np.arange(len(found)) >= len(self._known.samples)
        newest = {key: place for place, key in enumerate(_keys(found))}
        kept = np.array(
            [newest[key] == place and key not in self._withdrawn for place, key in enumerate(_keys(found))],
            bool,
        )
        return Sound(
            self._told,
            tuple(self._changed),
            found.at(kept),
            fresh[kept],
            tuple(p for p in self._pictures.values() if (p.device, p.number) not in self._withdrawn),
            tuple(self._accepted),
            self._aside,
            self._waiting,
            self._impossible,
            frozenset(self._withdrawn),
            tuple(self._notes),
        )

    def _too_early(self, message: Statistics | Features | Images) -> str:
        if message.registry > self._newest:
            return f"it follows version {message.registry} of the classes, here {self._newest} is known"
        return ""

    def _take_statistics(self, message: Statistics, content: str) -> None:
        self._check_space(message.space, message.sums.shape[1])
        told = taken_in(self._told.get(message.device), message, content, self._edits)
        reason = impossible(told)
        if reason:
            self._impossible[message.device] = reason
            raise ProtocolError(reason)
        self._told[message.device] = told
        self._changed[message.device] = None
        self._withdrawn |= {(message.device, number) for number in message.withdrawn.tolist()}

    def _take_features(self, message: Features) -> None:
        _, views, size = message.features.shape
        self._check_space(message.space, size)
        if message.features.dtype.name != self._space.dtype or not 1 <= views <= self._views:
            raise ProtocolError(
                f"features of {views} views in {message.features.dtype.name}, not of up to {self._views} in"
                f" {self._space.dtype}"
            )
        numbers = message.samples.tolist()
        named = [message.labels[number] for number in message.numbers]
        devices = (message.device,) * len(numbers)
        labels = self._named(named, devices, numbers, message.registry)
        features = with_views(message.features, self._views)
        new = np.array([self._is_new(row) for row in features], bool)
        self._note(message.device, len(new) - int(new.sum()), "samples are copies of others")
        self._parts.append(Samples(features, labels, devices, message.samples).at(new))

    def _take_images(self, message: Images) -> None:
        numbers = message.samples.tolist()
        named = [message.labels[number] for number in message.numbers]
        labels = self._named(named, (message.device,) * len(numbers), numbers, message.registry)
        copies = unreadable = 0
        for number, label, data in zip(numbers, labels, message.files(), strict=True):
            digest = image_hash(data)
            if digest in self._pictures or digest in self._known.pictures:
                copies += 1
                continue
            try:
                decode_image(data, f"sample {number}")
            except ImageError:
                unreadable += 1
                continue
            self._keep(digest, data)
            self._pictures[digest] = Picture(message.device, number, label, digest)
        self._note(message.device, copies, "pictures are copies of others")
        self._note(message.device, unreadable, "pictures cannot be read")
        if unreadable == len(numbers):
            raise ProtocolError("none of its pictures can be read")

    def _check_space(self, space: str, size: int) -> None:
        if space != self._space.id:
            raise ProtocolError("it is of another feature space: the device runs another backbone")
        if size != self._space.size:
            raise ProtocolError(f"its features have {size} values, not {self._space.size}")

    def _named(
        self, labels: Iterable[str], devices: Iterable[str], numbers: Iterable[int], version: int
    ) -> tuple[str, ...]:
        """Return what samples are called after the last edit."""
        each = zip(labels, devices, numbers, strict=True)
        return tuple(followed(label, self._edits, version, device, number) for label, device, number in each)

    def _is_new(self, features: NDArray) -> bool:
        """Tell whether these features came from nobody yet, and remember them."""
        digest = _hash(features)
        is_new = digest not in self._features
        self._features.add(digest)
        return is_new

    def _note(self, device: str, count: int, what: str) -> None:
        if count:
            self._notes.append(f"{count} of {device}'s {what}: left out")


def _read(content: Received) -> Statistics | Features | Images:
    """Return a content's message; ProtocolError when it is not what it says it is."""
    if hashlib.sha256(content.data).hexdigest() != content.id and not content.is_reduced:
        raise ProtocolError("it is not what its name says")
    if content.level not in CONTENTS:
        raise ProtocolError(f"there is no level {content.level!r}")
    message = codec.decode(content.data, CONTENTS[content.level])
    if not isinstance(message, (Statistics, Features, Images)):
        raise ProtocolError("it is no content")
    if message.device != content.device:
        raise ProtocolError(f"it speaks for {message.device}, and {content.device} sent it")
    return message


def _keys(samples: Samples) -> list[SampleKey]:
    return list(zip(samples.devices, samples.numbers.tolist(), strict=True))


def _hash(features: NDArray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(features).tobytes()).digest()
