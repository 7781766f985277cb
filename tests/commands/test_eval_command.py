"""`edge-cl eval` on real photographs: its figures, its cache, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from simulators.workshop import call, refused

from edge_cl.commands.evaluate import LEARNER_NAMES
from edge_cl.memory.cache import FeatureCache

CLASSES = ("0", "1", "2")
FIGURES = {
    "learner", "protocol", "seed", "tasks", "accuracy_per_task", "final_accuracy", "average_accuracy",
    "forgetting", "backward_transfer", "learn_ms_median", "consolidate_ms_total", "embed_ms_median",
    "state_bytes", "density", "flash_bytes_written", "peak_rss_bytes", "base_final_accuracy",
    "final_accuracy_by_views",
}  # fmt: skip


@pytest.fixture
def data(all_photos, tmp_path):
    """Three classes, six photographs each to learn from and six to be asked about."""
    for label in CLASSES:
        for number, path in enumerate(sorted((all_photos / label).iterdir())):
            place = tmp_path / "data" / ("train" if number % 2 else "test") / label
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    return tmp_path / "data"


@pytest.fixture
def words(data, backbone, tmp_path):
    return ["eval", "--backbone", backbone, "--data", data, "--cache", tmp_path / "features.db", "--json"]


def figures(*words):
    said = call(*words)
    assert said.status == 0, said.err
    assert said.err == ""  # no progress bar where there is no terminal
    return json.loads(said.out)


@pytest.mark.parametrize("learner", LEARNER_NAMES)
def test_every_learner_has_every_figure(learner, words):
    found = figures(*words, "--learner", learner, "--tasks", 3, "--steps-per-update", 8)
    assert set(found) >= FIGURES
    assert found["learner"] == learner
    assert len(found["accuracy_per_task"]) == 3
    assert found["final_accuracy"] == found["accuracy_per_task"][-1] == found["final_accuracy_by_views"]["1"]
    assert set(found["state_bytes"]) == {"base", "residual", "buffer"}
    assert (found["flash_bytes_written"] is None) == (learner not in ("edge", "base"))
    assert (found["base_final_accuracy"] is None) == (learner not in ("edge", "base"))
    assert "audit" not in found


def test_a_second_run_takes_its_features_from_the_cache(words, tmp_path):
    first = figures(*words, "--learner", "slda")
    written = (tmp_path / "features.db").stat().st_mtime_ns
    second = figures(*words, "--learner", "slda", "--views", 2)
    assert (tmp_path / "features.db").stat().st_mtime_ns == written
    with FeatureCache(tmp_path / "features.db") as cache:
        rows = cache._connection.execute("SELECT count(*) FROM features1").fetchone()[0]
    assert rows == 36
    assert first["final_accuracy_by_views"]["1"] > 0.3
    assert set(second["final_accuracy_by_views"]) == {"1", "2"}


def test_wrong_labels_bring_a_report_of_the_audit(words):
    found = figures(*words, "--label-noise", 0.2, "--steps-per-update", 4)
    assert set(found["audit"]) == {"suspects", "wrong_labels", "recall", "precision"}
    assert found["audit"]["wrong_labels"] == round(0.2 * 18)


def test_unreadable_pictures_are_listed_and_the_rest_is_used(words, data):
    (data / "train" / "0" / "empty.jpg").write_bytes(b"")
    (data / "test" / "1" / "text.jpg").write_text("no picture")
    found = figures(*words, "--learner", "ncm")
    assert {entry["file"].rsplit("/", 1)[1] for entry in found["refused"]} == {"empty.jpg", "text.jpg"}
    assert (found["train_pictures"], found["test_pictures"]) == (18, 18)


def test_sessions_of_the_manifest_order_domains(words, data):
    rows = ["path,session,order"]
    for part in ("train", "test"):
        for path in sorted((data / part).glob("*/*")):
            rows.append(f"{path.relative_to(data)},{int(path.stem) // 4},{int(path.stem)}")
    (data / "manifest.csv").write_text("\n".join(rows))
    found = figures(*words, "--learner", "ncm", "--protocol", "domain-incremental", "--tasks", 3)
    assert len(found["accuracy_per_task"]) == 3
    assert figures(*words, "--learner", "ncm", "--protocol", "stream", "--tasks", 2)["tasks"] == 2


def test_more_tasks_than_classes_are_refused(words):
    assert "3: lower --tasks" in refused(*words, "--tasks", 4)


def test_a_missing_part_is_refused(words, data):
    shutil.rmtree(data / "test")
    assert "has no folder test" in refused(*words)


def test_a_class_without_test_pictures_is_refused(words, data):
    shutil.rmtree(data / "test" / "2")
    assert "class '2' has no readable test picture" in refused(*words)


def test_two_spellings_of_one_class_are_refused(words, data):
    (data / "train" / "0").rename(data / "train" / "Mug")
    (data / "train" / "1").rename(data / "train" / "mug")
    assert "two spellings" in refused(*words)


def test_what_is_no_backbone_is_refused(words, data, tmp_path):
    (tmp_path / "no.tflite").write_bytes(b"not a model")
    assert "no.tflite" in refused(*words, "--backbone", tmp_path / "no.tflite")
    assert "gone.tflite" in refused(*words, "--backbone", tmp_path / "gone.tflite")


def test_domains_without_sessions_are_refused(words):
    said = refused(*words, "--protocol", "domain-incremental", "--tasks", 2)
    assert "manifest.csv" in said


@pytest.mark.parametrize(
    "option", [("--label-noise", 2), ("--views", 5), ("--tasks", 0), ("--learner", "magic"), ("--density", 0)]
)
def test_options_that_make_no_sense_are_refused(words, option):
    assert option[0] in refused(*words, *option)


# Asks OpenBLAS itself, whose function has another name in each of its builds.
ASK_OPENBLAS = """
import ctypes, re, sys
from edge_cl.cli import main
assert main(sys.argv[1:]) == 0
path = next(line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line)
library = ctypes.CDLL(path)
names = [p + "openblas_get_num_threads" + s for p in ("scipy_", "") for s in ("64_", "")]
print(next(getattr(library, name)() for name in names if hasattr(library, name)), file=sys.stderr)
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_reach_the_matrix_products(words, threads):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core: OpenBLAS never makes a second thread")
    asked = [str(word) for word in (*words, "--learner", "ncm", "--threads", threads)]
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", ASK_OPENBLAS, *asked],
        capture_output=True, text=True, timeout=60, check=True, env=environment,
    )  # fmt: skip
    assert json.loads(done.stdout)["threads"] == threads
    assert int(done.stderr.split()[-1]) == threads
