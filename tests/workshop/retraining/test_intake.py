"""Bad contents are set aside with a reason; what is sound is taken in, whatever comes beside it."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from simulators.devices import SIZE, SPACE, VIEWS, Device, drawn_samples

from edge_cl.learning.statistics import Statistics, empty_statistics
from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.labels import Assigned, Edits, extended
from edge_cl.wire.messages import Features, Images, Message
from edge_cl.wire.messages import Statistics as Told
from host_trainer.retraining.contents import Received
from host_trainer.retraining.intake import Known, Sound, capped, sifted, within, without
from host_trainer.retraining.samples import joined, nothing, statistics_of

NOTHING = Known({}, nothing(SPACE, VIEWS))
LABELS = ("can", "mug")


def received(message: Message, device: str = "device-1") -> Received:
    return Received(device, content_id(message), type(message).__name__.lower(), canonical(message))


def sift(*contents: Received, known: Known = NOTHING, edits: Edits = ()) -> Sound:
    return sifted(contents, known, SPACE, VIEWS, edits, lambda digest, data: None)


def told(**changes: Any) -> Told:
    message = Device("device-1").tell(drawn_samples(LABELS, 8, 0))
    return Told(**{**vars(message), **changes})


def features(**changes: Any) -> Features:
    return Features(**{**vars(Device("device-1").features(drawn_samples(LABELS, 8, 0))), **changes})


def jpeg(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def images(*files: bytes, device: str = "device-1") -> Images:
    sizes = np.array([len(each) for each in files], np.int32)
    samples = np.arange(1, len(files) + 1)
    return Images(
        *(device, 0, ("can",), samples, np.zeros(len(files), np.int32), sizes),
        np.frombuffer(b"".join(files), np.uint8),
    )


def scaled(factor: float) -> Told:
    exact = statistics_of(drawn_samples(LABELS, 8, 0), LABELS, 0)
    other = Statistics(exact.counts, np.rint(factor * exact.sums), np.rint(factor * factor * exact.moment), 0)
    return Device("device-1").message(other, LABELS, empty_statistics(SIZE, 2))


class Bad(NamedTuple):
    """A content that will not do, and a part of the reason."""

    content: Callable[[], Received]
    reason: str


BAD = {
    "no message at all": Bad(
        lambda: Received("device-1", digest(b"rubbish"), "statistics", b"rubbish"), "too few"
    ),
    "other bytes than its name": Bad(
        lambda: received(told())._replace(id="0" * 64), "not what its name says"
    ),
    "another level than it is": Bad(lambda: received(told())._replace(level="features"), "out of place"),
    "a level that is none": Bad(lambda: received(told())._replace(level="gossip"), "no level 'gossip'"),
    "for another device": Bad(
        lambda: received(told(), "device-2"), "speaks for device-1, and device-2 sent it"
    ),
    "statistics of another space": Bad(lambda: received(told(space="1" * 16)), "another feature space"),
    "features of another space": Bad(lambda: received(features(space="1" * 16)), "another feature space"),
    "statistics that continue others": Bad(lambda: received(told(since="f" * 64)), "not the newest here"),
    "features of another length": Bad(
        lambda: received(features(features=np.zeros((16, VIEWS, 8), np.int8))), "have 8 values, not 64"
    ),
    "features of another dtype": Bad(
        lambda: received(features(features=np.zeros((16, VIEWS, SIZE), np.float32))), "in float32"
    ),
    "features of too many views": Bad(
        lambda: received(features(features=np.zeros((16, 4, SIZE), np.int8))), "4 views"
    ),
    "scaled up": Bad(lambda: received(scaled(1.5)), "longer than its samples"),
    "scaled down": Bad(lambda: received(scaled(0.8)), "0.64 times as long"),
    "samples taken out that never were": Bad(
        lambda: received(told(counts=np.array([-96, 96], np.int64))), "lost more samples than it had"
    ),
    "pictures that are none": Bad(
        lambda: received(images(b"\xff\xd8\xff" + bytes(40))), "none of its pictures"
    ),
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_content_is_set_aside_and_the_others_are_taken(bad: Bad) -> None:
    content, good = bad.content(), Device("device-9").tell(drawn_samples(LABELS, 8, 3))
    found = sift(content, received(good, "device-9"))
    assert bad.reason in found.aside[content.device, content.id]
    assert found.accepted == (("device-9", content_id(good)),)
    assert set(found.told) == {"device-9"} and not len(found.samples) and not found.pictures


def test_a_content_that_is_ahead_of_the_registry_waits() -> None:
    content = received(told(registry=3))
    found = sift(content)
    assert not found.aside and "version 3" in found.waiting["device-1", content.id]
    edits: Edits = ()
    for name in ("tin", "pot", "box"):
        edits = extended(edits, [name], "thing")
    assert sift(content, edits=edits).accepted == (("device-1", content.id),)


def test_what_comes_twice_changes_nothing() -> None:
    device = Device("device-1")
    samples = drawn_samples(LABELS, 8, 0)
    contents = [received(device.tell(samples)), received(device.features(samples))]
    once, twice = sift(*contents), sift(*contents, *contents)
    assert once.accepted == twice.accepted
    assert once.told["device-1"].counts.tolist() == twice.told["device-1"].counts.tolist()
    assert len(once.samples) == len(twice.samples) == 16


def test_what_was_learned_from_before_is_not_taken_again() -> None:
    device = Device("device-1")
    first = received(device.tell(drawn_samples(LABELS, 8, 0)))
    known = Known(sift(first).told, NOTHING.samples, frozenset({first.id}))
    second = received(device.tell(drawn_samples(LABELS, 11, 0)))
    found = sift(first, second, known=known)
    assert found.accepted == (("device-1", second.id),) and found.changed == ("device-1",)
    assert found.told["device-1"].contents == (first.id, second.id)


def test_copies_of_a_sample_count_once_whoever_sends_them() -> None:
    samples = drawn_samples(LABELS, 8, 0)
    copier = replace(samples, numbers=samples.numbers + 100)
    found = sift(
        received(Device("device-1").features(samples)),
        received(Device("device-1").features(copier)),
        received(Device("device-2").features(samples), "device-2"),
    )
    assert len(found.samples) == 16 and set(found.samples.devices) == {"device-1"}
    assert found.notes == ("16 of device-1's samples are copies of others: left out",
                           "16 of device-2's samples are copies of others: left out")  # fmt: skip


def test_a_sample_that_comes_again_corrected_replaces_the_first() -> None:
    samples = drawn_samples(("can",), 2, 0)
    corrected = replace(samples, labels=("mug", "mug"), features=samples.features + np.int8(1))
    device = Device("device-1")
    found = sift(received(device.features(samples)), received(device.features(corrected)))
    assert found.samples.labels == ("mug", "mug")


def test_pictures_are_taken_once_and_broken_ones_left_out() -> None:
    found = sift(
        received(images(jpeg(0), jpeg(1), jpeg(0), b"\xff\xd8\xff" + bytes(40))),
        received(images(jpeg(1), jpeg(2), device="device-2"), "device-2"),
    )
    assert [(each.device, each.number) for each in found.pictures] == [
        ("device-1", 1), ("device-1", 2), ("device-2", 2)
    ]  # fmt: skip
    assert found.pictures[0].sha256 == digest(jpeg(0))
    assert any("copies" in note for note in found.notes) and any("cannot be read" in n for n in found.notes)


def test_withdrawn_samples_are_gone_old_ones_too() -> None:
    device, samples = Device("device-1"), drawn_samples(LABELS, 8, 0)
    first = sift(received(device.tell(samples)), received(device.features(samples)))
    known = Known(first.told, first.samples, frozenset(content for _, content in first.accepted))
    message = device.tell(samples.at(np.arange(16) != 2))
    message = Told(**{**vars(message), "withdrawn": np.array([3])})
    found = sift(received(message), known=known)
    assert 3 not in found.samples.numbers and len(found.samples) == 15
    assert found.withdrawn == {("device-1", 3)} and not found.fresh.any()


def test_samples_follow_the_registry_one_by_one_where_it_says_so() -> None:
    edits = extended((), ["can"], "tin", [Assigned("device-1", 2, "jar")])
    found = sift(received(Device("device-1").features(drawn_samples(LABELS, 3, 0))), edits=edits)
    assert found.samples.labels == ("tin", "jar", "tin", "mug", "mug", "mug")


def test_of_a_device_that_is_not_believed_nothing_stays() -> None:
    parts = []
    for name in ("device-1", "device-2"):
        device, samples = Device(name), drawn_samples(LABELS, 4, int(name[-1]))
        parts += [received(device.tell(samples), name), received(device.features(samples), name)]
    found = without(sift(*parts), {"device-2": "it lies"})
    assert set(found.told) == set(found.samples.devices) == {"device-1"}
    assert len(found.samples) == len(found.fresh) == 8
    assert set(found.aside.values()) == {"it lies"} and len(found.accepted) == len(found.aside) == 2


def test_a_loud_device_has_no_more_than_its_share_of_what_others_know_too() -> None:
    loud = drawn_samples(("can", "pot"), 300, 0, "loud")
    quiet = drawn_samples(("can",), 150, 1, "quiet")
    found = joined([loud, quiet])
    kept = found.at(capped(found, 0.5))
    counts = dict(Counter(zip(kept.devices, kept.labels, strict=True)))
    assert counts == {("loud", "can"): 150, ("loud", "pot"): 300, ("quiet", "can"): 150}
    assert set(kept.of("loud").numbers) == {*range(151, 301), *range(301, 601)}  # the newest of each
    assert len(found.at(capped(found, 0.1)).of("loud")) == 100 + 300
    assert capped(found, 1.0).all()


def test_room_is_shared_by_classes_then_by_devices_and_the_newest_stay() -> None:
    many = drawn_samples(("can",), 40, 0, "loud")
    few, rare = drawn_samples(("can",), 4, 1, "quiet"), drawn_samples(("mug",), 3, 2, "quiet")
    found = joined([many, few, rare])
    kept = found.at(within(found, 13))
    assert len(kept) == 13
    assert sorted(zip(kept.devices, kept.labels, strict=True)) == sorted(
        [("loud", "can")] * 6 + [("quiet", "can")] * 4 + [("quiet", "mug")] * 3
    )
    assert set(kept.of("loud").numbers) == set(range(35, 41))
    assert within(found, 1000).all()
