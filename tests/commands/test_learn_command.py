"""`edge-cl learn` and `predict`: pictures in, answers out, whatever the pictures and labels are."""

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simulators.workshop import call, ok, refused

ODD_LABELS = ["tasse à café", "кружка", "マグ", "☕", "a b", "..mug", "'; DROP TABLE--", "mug.jpg", "x" * 200]
BAD_LABELS = ["", "   ", "a/b", "a\\b", "a\nb", "..", "x" * 10_000, "\0", "é" * 101]


def labels(state: Path) -> dict[str, int]:
    return {found["label"]: found["taught"] for found in ok("status", "--state", state)["classes"]}


def test_a_folder_of_classes_is_learned_and_answers_at_once(state, photos, all_photos):
    result = ok("learn", photos, "--state", state)
    assert result["per_class"] == {"0": 6, "1": 6, "2": 6}
    assert result["refused"] == []
    assert set(result["timings"]) >= {
        "decode_ms", "embed_ms", "store_ms", "learn_ms", "consolidate_ms", "other_ms", "total_ms",
    }  # fmt: skip
    files = sorted(photos.glob("*/*.jpg"))
    answers = ok("predict", *files, "--state", state)["predictions"]
    right = [Path(found["file"]).parent.name == found["best"] for found in answers]
    assert np.mean(right) > 0.8  # of what it was taught


def test_train_is_taken_where_it_holds_classes_and_manifest_adds_sessions(state, photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data / "train")
    shutil.copytree(photos, data / "test")
    (data / "manifest.csv").write_text("path,session\ntrain/0/01.jpg,monday\n", encoding="utf-8")
    assert set(ok("learn", data, "--state", state)["per_class"]) == {"0", "1", "2"}
    with sqlite3.connect(state / "learner.db") as database:
        rows = database.execute("SELECT source FROM events WHERE session = 'monday'").fetchall()
    database.close()
    assert rows == [("01.jpg",)]


def test_a_class_may_be_called_train(state, photos):
    (photos / "1").rename(photos / "train")
    assert set(ok("learn", photos, "--state", state)["per_class"]) == {"0", "2", "train"}


def test_files_with_a_label_are_learned(state, photos):
    files = sorted((photos / "0").iterdir())
    assert ok("learn", "--label", "mug", *files, "--state", state)["per_class"] == {"mug": 6}


def test_a_csv_file_is_learned_and_its_bad_rows_are_named(state, photos, tmp_path):
    table = tmp_path / "list.csv"
    rows = [
        "path,label",
        "PHOTOS/0/01.jpg,zero",
        "PHOTOS/1/01.jpg,one",
        ",nothing",
        "PHOTOS/1/02.jpg,",
        "no.jpg,one",
    ]
    table.write_text("\ufeff" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    result = ok("learn", "--csv", table, "--state", state)
    assert result["per_class"] == {"zero": 1, "one": 1}
    names = [found["file"] for found in result["refused"]]
    assert names[:2] == ["list.csv row 4", "list.csv row 5 (PHOTOS/1/02.jpg)"]
    assert names[2].endswith("no.jpg")


@pytest.mark.parametrize("text", ["", "file,label\na.jpg,x\n", "path,label\n\xff\xfe\0"])
def test_a_csv_file_that_is_none_is_refused(state, tmp_path, text):
    table = tmp_path / "list.csv"
    table.write_bytes(text.encode("latin-1"))
    assert "list.csv" in refused("learn", "--csv", table, "--state", state)


def test_unreadable_pictures_are_listed_and_the_rest_is_learned(state, photos):
    folder = photos / "0"
    whole = (folder / "01.jpg").read_bytes()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "words.jpg").write_text("these are words")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    result = ok("learn", photos, "--state", state)
    assert result["learned"] == 18
    names = {Path(found["file"]).name for found in result["refused"]}
    assert names == {"empty.jpg", "cut.jpg", "words.jpg", "bomb.png", "gone.jpg"}
    assert all(found["reason"] for found in result["refused"])
    words = call("learn", photos, "--state", state)
    assert words.status == 0
    assert "not learned (5):" in words.out
    assert "18 were known already" in words.out


def test_nothing_readable_ends_with_status_2(state, tmp_path):
    (tmp_path / "bad" / "mug").mkdir(parents=True)
    (tmp_path / "bad" / "mug" / "a.jpg").write_bytes(b"")
    assert "none of 1 pictures" in refused("learn", tmp_path / "bad", "--state", state)
    assert "no picture could be read" in _refused_prediction(state, photos=tmp_path / "bad" / "mug" / "a.jpg")


def _refused_prediction(state: Path, photos: Path) -> str:
    picture = photos.with_name("red.png")
    Image.new("RGB", (64, 64), "red").save(picture)
    ok("learn", "--label", "red", picture, "--state", state)
    return refused("predict", photos, "--state", state)


@pytest.mark.parametrize("make", ["empty", "pictures without classes", "file", "missing"])
def test_a_folder_without_classes_is_refused_with_the_way_to_mend_it(state, photos, tmp_path, make):
    place = {"empty": tmp_path / "new", "pictures without classes": photos / "0"}.get(make, tmp_path / "it")
    if make == "file":
        place.write_text("x")
    elif make == "empty":
        place.mkdir()
    assert "--label" in refused("learn", place, "--state", state)


@pytest.mark.parametrize(
    "words", [[], ["a.jpg", "b.jpg"], ["--label", "mug"], ["--label", "m", "--csv", "c"]]
)
def test_a_command_that_says_too_little_or_too_much_is_refused(state, words):
    refused("learn", *words, "--state", state)


@pytest.mark.parametrize("label", ODD_LABELS)
def test_labels_of_any_script_are_kept_as_they_are(state, photos, label):
    ok("learn", "--label", label, photos / "0" / "01.jpg", "--state", state)
    assert labels(state) == {label: 1}


@pytest.mark.parametrize("label", BAD_LABELS)
def test_labels_that_cannot_be_kept_are_refused_in_one_line(state, photos, label):
    assert "label" in refused("learn", f"--label={label}", photos / "0" / "01.jpg", "--state", state)
    assert labels(state) == {}


def test_a_class_folder_with_a_bad_name_is_listed_and_the_rest_is_learned(state, photos):
    (photos / "2").rename(photos / "two\nlines")
    result = ok("learn", photos, "--state", state)
    assert set(result["per_class"]) == {"0", "1"}
    assert "two\nlines" in result["refused"][0]["file"]
    assert "\ntwo" not in call("learn", photos, "--state", state).out  # a name cannot break a line


def test_two_spellings_are_one_class(state, photos):
    ok("learn", "--label", "Mug", photos / "0" / "01.jpg", "--state", state)
    ok("learn", "--label", "mUG", photos / "0" / "02.jpg", "--state", state)
    assert labels(state) == {"Mug": 2}


def test_a_picture_that_was_taught_is_skipped(taught, photos):
    again = ok("learn", photos, "--state", taught)
    assert (again["learned"], again["skipped"]) == (0, 18)


def test_a_picture_that_was_moved_to_another_class_is_relabelled(taught, photos):
    shutil.move(photos / "0" / "01.jpg", photos / "1" / "moved.jpg")
    result = ok("learn", photos, "--state", taught)
    assert [(found["was"], found["label"]) for found in result["relabelled"]] == [("0", "1")]
    assert result["learned"] == 0
    assert ok("learn", photos, "--state", taught)["relabelled"] == []


def test_a_persons_relabel_is_not_undone_by_the_folder_but_by_a_label(taught, photos):
    picture = photos / "0" / "01.jpg"
    assert ok("relabel", picture, "1", "--state", taught)["was"] == "0"
    again = ok("learn", photos, "--state", taught)
    assert again["relabelled"] == []
    assert "was relabelled '1' since" in again["refused"][0]["reason"]
    told = ok("learn", "--label", "0", picture, "--state", taught)
    assert [(found["was"], found["label"]) for found in told["relabelled"]] == [("1", "0")]


def test_a_folder_that_contradicts_itself_keeps_the_first_label_every_time(state, photos):
    shutil.copy(photos / "0" / "01.jpg", photos / "2" / "copy.jpg")
    for _ in range(2):
        result = ok("learn", photos, "--state", state)
        assert [Path(found["file"]).name for found in result["refused"]] == ["copy.jpg"]
        assert result["relabelled"] == []
    assert ok("relabel", photos / "0" / "01.jpg", "0", "--state", state)["confirmed"]


def test_views_cannot_exceed_what_the_learner_keeps(backbone, photos, tmp_path):
    state = tmp_path / "narrow"
    ok("init", "--state", state, "--backbone", backbone, "--views", "2")
    assert "--views 1..2" in refused("learn", photos, "--state", state, "--views", "3")
    assert ok("learn", photos, "--state", state, "--views", "1", "--no-mirror")["learned"] == 18


def test_prediction_lists_what_it_cannot_read_and_answers_the_rest(taught, photos):
    (photos / "0" / "bad.jpg").write_bytes(b"no")
    result = ok(
        "predict", photos / "0" / "bad.jpg", photos / "0" / "01.jpg", "--state", taught, "--views", "4"
    )
    assert [Path(found["file"]).name for found in result["unreadable"]] == ["bad.jpg"]
    found = result["predictions"][0]
    assert 0 <= found["second_probability"] <= found["probability"] <= 1
    assert found["unknown"] == (found["label"] is None)
    line = call("predict", photos / "0" / "01.jpg", "--state", taught).out
    assert found["best"] in line
    assert "%" in line


def test_prediction_before_teaching_says_what_to_do(state, photos):
    assert "edge-cl learn" in refused("predict", photos / "0" / "01.jpg", "--state", state)


def test_pictures_are_kept_only_when_that_was_asked_for(backbone, photos, tmp_path):
    for name, options in (("lean", []), ("fat", ["--keep-jpeg"])):
        folder = tmp_path / name
        ok("init", "--state", folder, "--backbone", backbone, *options)
        ok("learn", photos, "--state", folder)
    kept = {name: ok("status", "--state", tmp_path / name)["sizes"]["jpeg_bytes"] for name in ("lean", "fat")}
    assert kept["lean"] == 0
    assert kept["fat"] == sum(path.stat().st_size for path in photos.glob("*/*"))


def test_an_isolated_engine_learns_the_same(state, photos, tmp_path, backbone):
    other = tmp_path / "isolated"
    ok("init", "--state", other, "--backbone", backbone, "--buffer-bytes", "200k", "--isolate")
    ok("learn", photos, "--state", state)
    ok("learn", photos, "--state", other)
    ask = [photos / "1" / "02.jpg", "--state"]
    assert json.dumps(ok("predict", *ask, state)) == json.dumps(ok("predict", *ask, other))
