"""Triggers, parcels, pictures, and how the names of classes are followed: each rule by itself."""

import io

import numpy as np
import pytest
from PIL import Image

from edge_cl.config import SyncSettings
from edge_cl.device.sync import parcels
from edge_cl.device.sync.following import Known, sent_now, steps
from edge_cl.device.sync.outbox import Standing
from edge_cl.device.sync.parcels import Held, missing, packed, withdrawn
from edge_cl.device.sync.pictures import bare
from edge_cl.device.sync.triggers import FUTURE_S, Look, reason
from edge_cl.errors import ImageError
from edge_cl.vision.frames import decode_image
from edge_cl.wire.labels import Assigned, Edit
from edge_cl.wire.messages import FEATURES, IMAGES, JPEG

NOW = 1_800_000_000
RULES = SyncSettings(interval_s=3600, samples=10, fall=0.1)
DONE = Standing(synced_at=NOW - 60, samples=100, accuracy=900)


# -- when ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("standing", "look", "why"),
    [
        (Standing(), Look(), "time"),
        (DONE, Look(100, 900), ""),
        (DONE, Look(109, 900), ""),
        (DONE, Look(110, 900), "new samples"),
        (DONE, Look(100, 801), ""),
        (DONE, Look(100, 800), "accuracy fell"),
        (DONE, Look(100, -1), ""),
        (DONE._replace(accuracy=-1), Look(100, 100), ""),
        (DONE._replace(synced_at=NOW - 3600), Look(100, 900), "time"),
        (DONE._replace(synced_at=NOW + 50_000), Look(100, 900), "time"),  # the clock was set back
        (DONE._replace(attempt=2, due=NOW + 1), Look(500, 0), ""),
        (DONE._replace(attempt=2, due=NOW), Look(100, 900), "again"),
        (Standing(due=NOW + FUTURE_S), Look(), "time"),  # nobody asks for that: the clock again
    ],
)
def test_a_round_is_due_for_a_reason(standing, look, why):
    assert reason(RULES, standing, look, NOW, is_pressed=False) == why
    assert reason(RULES, standing, look, NOW, is_pressed=True) == "button"


def test_triggers_can_be_switched_off():
    rules = SyncSettings(interval_s=3600, samples=0, fall=0.0)
    assert reason(rules, DONE, Look(10_000, 0), NOW, is_pressed=False) == ""


# -- which samples ---------------------------------------------------------------------------------------

HELD = (Held(1, "mug", 2, 500), Held(2, "mug", 2, 0), Held(3, "face", 2, 500), Held(4, "fork", 0, 500))
LEVEL = {"mug": "images", "face": "never", "fork": "images", "lamp": "features"}


def test_samples_leave_by_the_level_of_their_class_once():
    assert [each.sample for each in missing(HELD, {}, LEVEL.__getitem__, FEATURES)] == [1, 2]
    assert [each.sample for each in missing(HELD, {}, LEVEL.__getitem__, IMAGES)] == [1, 4]
    sent = {FEATURES: {1: "MUG", 2: "cup"}}
    assert [each.sample for each in missing(HELD, sent, LEVEL.__getitem__, FEATURES)] == [2]


def test_what_may_not_be_there_any_more_is_withdrawn():
    sent = {FEATURES: {1: "mug", 2: "mug", 3: "mug"}, IMAGES: {1: "mug", 5: "lamp"}}
    labels = {1: "mug", 3: "face", 5: "lamp"}
    assert withdrawn(sent, labels, LEVEL.__getitem__) == [2, 3, 5]


def test_parcels_are_small_and_hold_samples_of_the_same_number_of_views(monkeypatch):
    monkeypatch.setattr(parcels, "PARCEL_BYTES", 1000)
    held = [Held(number, f"class {number % 2}", 1 + number % 2, 400 * number) for number in range(1, 8)]
    found = list(packed(held, FEATURES, 3, 300))
    assert [[sample for sample, _ in each.samples] for each in found] == [
        [2, 4, 6],
        [1],
        [3],
        [5],
        [7],
    ] or all(len({1 + sample % 2 for sample, _ in each.samples}) == 1 for each in found)
    assert sorted(sample for each in found for sample, _ in each.samples) == list(range(1, 8))
    pictures = list(packed(held, IMAGES, 3, 300))
    assert [sample for each in pictures for sample, _ in each.samples] == list(range(1, 8))
    assert all(each.edition == 3 for each in found)
    for each in pictures:
        size = sum(400 * sample for sample, _ in each.samples)
        assert size <= 1000 or len(each.samples) == 1


def test_contents_are_made_of_what_is_there_or_not_at_all():
    parcel = parcels.Parcel(FEATURES, 2, ((3, "mug"), (5, "fork")))
    rows = np.ones((1, 4), np.int8)
    made = parcels.features("pi-1", "0" * 16, parcel, {3: rows, 5: rows})
    assert (made.labels, made.samples.tolist(), made.registry) == (("mug", "fork"), [3, 5], 2)
    assert parcels.features("pi-1", "0" * 16, parcel, {3: rows}) is None
    assert parcels.images("pi-1", parcel._replace(level=IMAGES), {3: JPEG}) is None
    files = {3: JPEG + b"a", 5: JPEG + b"bc"}
    assert parcels.images("pi-1", parcel._replace(level=IMAGES), files).files() == [JPEG + b"a", JPEG + b"bc"]


# -- pictures --------------------------------------------------------------------------------------------


def picture(kind: str, **options: object) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3), np.uint8))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noted(orientation: int) -> bytes:
    notes = Image.Exif()
    notes[0x0112], notes[0x010F], notes[0x8825] = (
        orientation,
        "A camera of mine",
        {1: "N", 2: (52.0, 31.0, 7.0)},
    )
    return picture("JPEG", exif=notes, comment=b"at home")


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_leaves_without_its_notes_and_upright(orientation):
    data = noted(orientation)
    assert b"A camera" in data
    left = bare(data, "x")
    assert b"A camera" not in left
    assert b"at home" not in left
    with Image.open(io.BytesIO(left)) as image:
        assert not image.getexif()
    before, after = (np.asarray(decode_image(each, "x"), float) for each in (data, left))
    assert before.shape == after.shape
    if orientation == 1:
        assert np.array_equal(before, after)
    assert left == bare(data, "x")


def test_a_picture_of_another_kind_leaves_as_a_jpeg():
    left = bare(picture("PNG"), "x")
    assert left.startswith(JPEG)
    assert decode_image(left, "x").size == (36, 24)


def test_what_stands_behind_a_picture_does_not_leave():
    assert bare(picture("JPEG") + b"a secret behind it", "x") == bare(picture("JPEG"), "x")


@pytest.mark.parametrize("cut", [2, 10, 200])
def test_a_picture_that_is_broken_is_refused(cut):
    with pytest.raises(ImageError):
        bare(picture("JPEG")[:cut], "x")


# -- names of classes ------------------------------------------------------------------------------------

SAMPLES = {1: Known("mug", True), 2: Known("mug", False), 3: Known("fork", True)}


def follow(edit: Edit, private: tuple[str, ...] = ()):
    return steps(edit, "pi-1", ("mug", "fork"), SAMPLES, lambda label: label in private)


def test_a_class_is_called_as_the_fleet_calls_it():
    assert follow(Edit(1, ("MUG", "lamp"), "cup", ())) == ({}, {"mug": "cup"}, {})
    assert follow(Edit(1, ("lamp",), "cup", ())) == ({}, {}, {})


def test_a_private_class_keeps_its_name_unless_the_new_one_is_private_too():
    edit = Edit(1, ("mug",), "cup", ())
    assert follow(edit, private=("mug",)) == ({}, {}, {})
    assert follow(edit, private=("mug", "cup")) == ({}, {"mug": "cup"}, {})


def test_samples_are_split_off_but_for_those_that_a_person_here_spoke_of():
    assigned = tuple(Assigned("pi-1", sample, "bowl") for sample in (1, 2, 3, 9))
    other = (Assigned("pi-2", 1, "cup"),)
    assert follow(Edit(1, ("mug",), "mug", assigned + other)) == ({1: "bowl"}, {}, {})
    assert follow(Edit(1, ("mug",), "cup", assigned)) == ({1: "bowl"}, {"mug": "cup"}, {})


def test_a_sample_that_keeps_a_name_that_its_class_gives_up_comes_last():
    assert follow(Edit(1, ("mug",), "cup", (Assigned("pi-1", 1, "mug"),))) == ({}, {"mug": "cup"}, {1: "mug"})


def test_what_the_host_calls_what_it_has_is_followed_too():
    edit = Edit(1, ("mug",), "cup", (Assigned("pi-1", 1, "bowl"),))
    assert sent_now({1: "mug", 2: "mug", 3: "fork", 4: ""}, (edit,), "pi-1") == {
        1: "bowl",
        2: "cup",
        3: "fork",
    }
