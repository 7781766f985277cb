"""What devices tell adds up to what one device would know that was taught all of it."""

import numpy as np
import pytest
from simulators.devices import SIZE, Device, drawn_samples

from edge_cl.errors import ProtocolError
from edge_cl.learning import increment, named
from edge_cl.learning.named import Named
from edge_cl.learning.statistics import SAMPLE_WEIGHT, Statistics, empty_statistics
from edge_cl.wire.codec import content_id
from edge_cl.wire.labels import extended
from edge_cl.wire.messages import Statistics as Message
from host_trainer.retraining.merging import merged
from host_trainer.retraining.samples import Samples, joined, statistics_of
from host_trainer.retraining.told import Told, from_tensors, impossible, moved, taken_in, to_tensors

LABELS = ("can", "mug", "tin", "jar")


def told_by(device: Device, samples: Samples, told: Told | None = None) -> Told:
    """Return what the host knows of a device after one more message of all that it was taught."""
    message = device.tell(samples)
    return taken_in(told, message, content_id(message), ())


def test_three_devices_are_one_that_was_taught_everything() -> None:
    parts = [drawn_samples(LABELS[:2], 12, 0), drawn_samples(LABELS[1:3], 9, 1), drawn_samples(LABELS, 7, 2)]
    told = [told_by(Device(f"device-{n}"), part) for n, part in enumerate(parts)]
    found = merged(named.nothing(SIZE), told, (), cap=1.0)
    union = statistics_of(joined(parts), found.known.labels, 0)
    assert found.known.labels == LABELS
    np.testing.assert_array_equal(found.known.statistics.counts, union.counts)
    np.testing.assert_array_equal(found.known.statistics.sums, union.sums)
    # The scatter is told in few directions; its trace is told whole.
    assert np.trace(found.known.statistics.moment) == pytest.approx(np.trace(union.moment), rel=1e-3)
    assert found.taken == {each.device: each.contents[-1] for each in told}


def test_the_host_knows_bit_for_bit_what_the_device_keeps_as_told() -> None:
    device, told = Device("device-1"), None
    for count in (5, 9, 9, 14):
        told = told_by(device, drawn_samples(LABELS[:3], count, 0), told)
        mine = device.told_on(told.labels)
        for ours, theirs in zip(told.statistics(), mine, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(told.contents) == 4
    assert not impossible(told)


def test_many_messages_take_no_more_room_than_the_matrix() -> None:
    device, told = Device("device-1", rank=SIZE), None
    for count in range(2, 7):
        told = told_by(device, drawn_samples(LABELS[:2], count, 0), told)
    assert told.rest is not None and len(told.factors) <= 2 * SIZE
    for ours, theirs in zip(told.statistics(), device.told_on(told.labels), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_order_of_devices_and_the_split_into_messages_do_not_matter() -> None:
    samples = [drawn_samples(LABELS[:3], 10, seed) for seed in range(3)]
    told = [told_by(Device(f"device-{n}"), part) for n, part in enumerate(samples)]
    forward, back = (merged(named.nothing(SIZE), order, (), 1.0).known for order in (told, told[::-1]))
    assert forward.labels == back.labels
    for one, other in zip(forward.statistics, back.statistics, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_message_without_since_replaces_what_was_told_before() -> None:
    first = told_by(Device("device-1"), drawn_samples(LABELS[:2], 8, 0))
    again = told_by(Device("device-1"), drawn_samples(LABELS[2:], 8, 1), first)
    assert again.labels == LABELS[2:]
    assert len(again.contents) == 1


@pytest.mark.parametrize("change", [{"since": "f" * 64}, {"space": "1" * 16}], ids=["other", "space"])
def test_a_message_that_continues_something_else_is_refused(change: dict[str, str]) -> None:
    device = Device("device-1")
    told = told_by(device, drawn_samples(LABELS[:2], 8, 0))
    message = device.tell(drawn_samples(LABELS[:2], 9, 0))
    with pytest.raises(ProtocolError, match="continue"):
        taken_in(told, Message(**{**vars(message), **change}), "0" * 64, ())


def test_classes_that_the_registry_joined_are_one_on_both_ends() -> None:
    device = Device("device-1")
    told = told_by(device, drawn_samples(LABELS[:3], 8, 0))
    edits = extended((), ["can", "tin"], "metal")
    joint = moved(told, edits, 1)
    assert joint.labels == ("metal", "mug")
    device.follow({"can": "metal", "tin": "metal"}, 1)
    for ours, theirs in zip(joint.statistics(), device.told_on(joint.labels), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    message = device.tell(drawn_samples(("metal", "mug"), 11, 0))
    later = taken_in(told, message, content_id(message), edits)  # the host moves before it adds
    for ours, theirs in zip(later.statistics(), device.told_on(later.labels), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_was_told_reads_back_the_same() -> None:
    told = told_by(Device("device-1"), drawn_samples(LABELS[:2], 8, 0))
    joint = moved(told, extended((), ["can", "mug"], "cup"), 1)
    for each in (told, joint):
        back = from_tensors(to_tensors(each))
        assert back[:5] == each[:5]
        for ours, theirs in zip(back.statistics(), each.statistics(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_device_that_outweighs_all_others_is_scaled_down_and_not_taken_whole() -> None:
    small = told_by(Device("small"), drawn_samples(LABELS[:2], 30, 0))
    large = told_by(Device("large"), drawn_samples(LABELS[:2], 400, 1))
    found = merged(named.nothing(SIZE), [small, large], (), cap=0.5)
    assert found.shares["small"] == 1.0 and found.shares["large"] == pytest.approx(0.25)
    assert set(found.taken) == {"small"}
    assert found.known.statistics.counts.sum() == pytest.approx((60 + 200) * SAMPLE_WEIGHT, rel=0.01)
    assert (found.known.statistics.moment == np.rint(found.known.statistics.moment)).all()


def test_a_device_alone_with_its_classes_is_not_scaled() -> None:
    alone = told_by(Device("alone"), drawn_samples(LABELS[:2], 400, 1))
    other = told_by(Device("other"), drawn_samples(LABELS[2:], 5, 1))
    assert merged(named.nothing(SIZE), [alone, other], (), cap=0.5).shares == {"alone": 1.0, "other": 1.0}


def test_a_class_without_samples_is_none() -> None:
    device = Device("device-1")
    told = told_by(device, drawn_samples(LABELS[:2], 8, 0))
    told = told_by(device, drawn_samples(LABELS[:1], 8, 0), told)  # the mugs were forgotten
    assert merged(named.nothing(SIZE), [told], (), 1.0).known.labels == ("can",)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5, 3.0])
def test_scaled_features_are_found_by_their_length(factor: float) -> None:
    exact = statistics_of(drawn_samples(LABELS[:2], 20, 0), LABELS[:2], 0)
    scaled = Statistics(exact.counts, np.rint(exact.sums * factor), np.rint(exact.moment * factor**2), 0)
    message = Device("device-1").message(scaled, LABELS[:2], empty_statistics(SIZE, 2))
    assert impossible(taken_in(None, message, "0" * 64, ()))


def test_the_host_knows_its_own_classes_first() -> None:
    own = drawn_samples(("zebra", "mug"), 6, 5)
    labels = ("zebra", "mug")
    told = told_by(Device("device-1"), drawn_samples(("Mug", "ant"), 6, 0))
    found = merged(Named(labels, statistics_of(own, labels, 0)), [told], (), 1.0)
    assert found.known.labels == ("zebra", "mug", "ant")
    assert found.known.statistics.counts.tolist() == [
        6 * SAMPLE_WEIGHT,
        12 * SAMPLE_WEIGHT,
        6 * SAMPLE_WEIGHT,
    ]
    assert not increment.fault(found.known.statistics)
