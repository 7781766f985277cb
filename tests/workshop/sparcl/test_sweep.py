"""Many trainings at once: each its own command, gone on with where they stopped, compared at the end."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from simulators.foreman import ok, started
from simulators.small_network import small_network

from edge_cl.errors import ConfigError
from host_trainer.checkpoints import save_network
from host_trainer.sparcl.record import from_json
from host_trainer.sparcl.session import RECORD
from host_trainer.sparcl.sweep import check_sweep, runs_of, words_of


@pytest.fixture(scope="module")
def words(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder = tmp_path_factory.mktemp("backbone") / "small"
    save_network(folder, small_network())
    small = ("--network", folder, "--buffer", 12, "--batch", 8, "--epochs", 1, "--tasks", 1)
    return ("train", "--data", drawn, "--method", "er", *small)


def check(result: dict[str, Any], out: Path) -> None:
    """Check that each run is whole, says how to repeat it, and stands in the comparison."""
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert result["comparison"] == str(out / "comparison.html") and "2 trainings" in page
    for run, seed in zip(result["runs"], (3, 4), strict=True):
        assert (run["name"], run["seed"]) == (f"seed-{seed}", seed)
        record = from_json((out / run["name"] / RECORD).read_text(encoding="utf-8"))
        assert record.seed == seed and f"--seed {seed}" in record.command and "--seeds" not in record.command
    assert len(list((out / "pixels").glob("*.pixels"))) == 2  # decoded once for both


@pytest.mark.slow
def test_seeds_in_processes_go_on_after_ctrl_c(words: tuple[Any, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    many = (*words, "--out", out, "--seeds", "3,4", "--jobs", 1)
    process = started(*many)
    deadline = time.monotonic() + 200
    while not (out / "seed-3" / "network.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    before = (out / "seed-3" / RECORD).stat().st_mtime_ns
    check(ok(*many), out)
    assert (out / "seed-3" / RECORD).stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.parametrize("workers", [1, 2])  # 2: both want two cores, and there may be no more
def test_seeds_as_tasks_of_ray(workers: int, words: tuple[Any, ...], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="--engine ray needs Ray")
    many = (*words, "--out", tmp_path / "out", "--seeds", "3,4", "--engine", "ray", "--workers", workers)
    check(ok(*many), tmp_path / "out")


def test_runs_are_named_by_file_and_seed_and_share_the_decoded_pictures() -> None:
    out = Path("out")
    given = [("a", {"method": "er", "origin": Path("x"), "save_every": 5}), ("b", {"cache": Path("c")})]
    runs = runs_of(given, (0, 1), out)
    assert [run.name for run in runs] == ["a-seed-0", "a-seed-1", "b-seed-0", "b-seed-1"]
    assert " ".join(runs[1].words) == (
        "train --method er --from x --save-every 5 --seed 1 --out out/a-seed-1 --cache out/pixels"
    )
    assert "--cache c" in " ".join(runs[2].words)
    assert [run.name for run in runs_of(given, (), out)] == ["a", "b"]
    assert words_of({"new_data": Path("d"), "rate": 0.1}) == ("train", "--new-data", "d", "--rate", "0.1")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    runs = runs_of([("", {})], (0,), tmp_path)
    (tmp_path / "seed-0").mkdir()
    check_sweep(tmp_path, runs)
    (tmp_path / "seed-1").mkdir()
    with pytest.raises(ConfigError, match="not of this sweep"):
        check_sweep(tmp_path, runs)
