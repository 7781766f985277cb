"""Footprint: memory while learning, start-up time, what gets imported, and bytes written to flash.

Claims:
- learning 964 photographs with MobileNetV1 1.0/224 loaded peaks at 110 MB of resident memory at most, the
  rehearsal memory full and a checkpoint written;
- `import edge_cl` takes under 150 ms;
- no device command imports SciPy, scikit-learn, TensorFlow or PyTorch;
- at most 4 bytes are written per payload byte over 2,000 replacements of 1 KB features (flash.py).

Method: memory is the kernel's peak (ru_maxrss) of the `edge-cl learn` process, as it says itself. The
import is the median of fresh interpreters, their own start not counted. Every command runs once on a small
learner, and lists what it has imported when it ends.

Expected time: 2 minutes.

    python benchmarks/footprint.py [--write]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ledger
import photographs
from ledger import Row, at_most
from speed import LEARNED, learn

IMPORTS = 15  # fresh interpreters
FORBIDDEN = ("scipy", "sklearn", "tensorflow", "torch", "pandas", "matplotlib")
TIMED_IMPORT = """
import time
start = time.perf_counter()
import {module}
print(1000 * (time.perf_counter() - start))
"""
LISTED_COMMAND = """
import json, sys
from edge_cl.cli import main
status = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump(sorted(sys.modules), file)
sys.exit(status)
"""
HERE = Path(__file__).resolve().parent


def memory() -> list[Row]:
    """Return the peak of an `edge-cl learn`."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="edge-cl-") as state:
        with photographs.unpacked(LEARNED) as folder:
            found = learn(folder, Path(state) / "state")
    peak = found.said["peak_rss_bytes"] / 1e6
    claim = f"peak resident memory of `edge-cl learn`, {found.said['learned']} photographs"
    return [at_most(claim, peak, 110, "MB", digits=1)]


def imports() -> list[Row]:
    """Return how long importing takes."""
    found = {module: _import_ms(module) for module in ("edge_cl", "edge_cl.cli", "edge_cl.device.agent")}
    rows = [Row(f"`import {module}`", f"{value:.1f} ms") for module, value in found.items()]
    return [at_most("`import edge_cl`", found["edge_cl"], 150, "ms", 1), *rows[1:]]


def _import_ms(module: str) -> float:
    code = TIMED_IMPORT.format(module=module)
    times = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(IMPORTS)
    ]
    return statistics.median(times)


def imported() -> list[Row]:
    """Return which heavy modules the device's commands import."""
    found: dict[str, list[str]] = {}
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="edge-cl-") as place,
        photographs.unpacked("trashnet", {"train": 6, "test": 2}) as folder,
    ):
        for words in _commands(Path(place), folder):
            modules = _modules(words, Path(place) / "modules.json")
            found[words[0]] = sorted({module.split(".")[0] for module in modules} & set(FORBIDDEN))
    guilty = {command: heavy for command, heavy in found.items() if heavy}
    shown = "; ".join(f"{command}: {', '.join(heavy)}" for command, heavy in guilty.items()) or "none"
    claim = f"heavy modules imported by {len(found)} commands ({', '.join(found)})"
    return [Row(claim, shown, "none", not guilty)]


def _commands(place: Path, folder: Path) -> list[list[str]]:
    state, other = str(place / "state"), str(place / "restored")
    backbone = str(photographs.extractor())
    pictures = [str(path) for path in sorted((folder / "test").glob("*/*"))]
    saved = str(place / "backup.edge")
    return [
        ["init", "--state", state, "--backbone", backbone],
        ["learn", "--state", state, str(folder)],
        ["predict", "--state", state, *pictures],
        ["status", "--state", state],
        ["relabel", "--state", state, "1", "something else"],
        ["forget", "--state", state, "--sample", "2", "--yes"],
        ["backbone", "list", "--state", state],
        ["doctor", "--state", state],
        ["backup", "--state", state, saved],
        ["restore", "--state", other, saved],
        [
            "eval",
            "--backbone",
            backbone,
            "--data",
            str(folder),
            "--tasks",
            "2",
            "--cache",
            str(place / "f.db"),
        ],
    ]


def _modules(words: Sequence[str], listing: Path) -> list[str]:
    listing.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", LISTED_COMMAND, str(listing), *words], capture_output=True, text=True
    )
    if done.returncode and words[0] != "doctor":  # the doctor may find something wrong with this machine
        raise SystemExit(f"edge-cl {words[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return list(json.loads(listing.read_text()))


def flash() -> list[Row]:
    """Return what flash.py finds."""
    said = subprocess.run(
        [sys.executable, str(HERE / "flash.py"), "--json"], check=True, capture_output=True, text=True
    )
    rows = []
    for found in json.loads(said.stdout):
        slots = f"{int(found['slots'])} slots"
        claim = f"flash bytes written per payload byte, first 2,000 replacements, {slots}"
        rows.append(at_most(claim, found["first"], 4.0, digits=2))
        steady, size = found["steady"], found["file_per_live"]
        rows.append(
            Row(f"... in the steady state; file per living byte, {slots}", f"{steady:.2f}; {size:.2f}")
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the rows into the ledger")
    args = parser.parse_args()
    photographs.extractor()
    rows = [*memory(), *imports(), *imported(), *flash()]
    ledger.show("footprint", rows)
    if args.write:
        ledger.write("footprint", "python benchmarks/footprint.py --write", ledger.rows_table(rows))


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
