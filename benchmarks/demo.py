"""The demo, `make demo`: the real `edge-cl` on real pictures, taught class by class, killed, started again.

It drives the command line as a person would, in a temporary folder: a learner is made, taught one class
after the other, killed with SIGKILL in the middle of one, asked about pictures it has never seen and about
things it was never taught, and asked what it knows. Last it draws its accuracy after each class beside that
of the learners people would use instead, taught and asked the same pictures in the same order.

The pictures are photographs of waste (TrashNet, see photographs.py) where EDGE_CL_DATA has them, seen by
MobileNetV1. Anywhere else they are handwritten digits (see digits.py), seen by the backbone that ships: that
needs no download.
Expected time: 2 minutes on two cores.

    make demo
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import digits
import ledger
import numpy as np
import photographs
from accuracy import COLOURS, TITLES

from edge_cl.device import shipped
from edge_cl.evaluation.protocols import Plan
from edge_cl.evaluation.trial import TrialConfig, run_trial
from edge_cl.learning.peers import PEERS, PeerConfig
from edge_cl.memory.opening import open_store

SET = "trashnet"
PICTURES = {"train": 72, "test": 24}  # of a class: taught, and asked about
KILLED = 3  # the class in whose middle the power goes: the fourth
POLL_S = 0.02  # between two looks at the learner that is about to be killed
SHOWN = 2  # unseen pictures of a class whose answers are printed
BAR = 30  # characters
STATUS_LINES = 24


class Story(NamedTuple):
    """What the demo is told with.

    Attributes:
        kinds: what the classes are, in words.
        pictures: what the pictures are, in words.
        network: file of the backbone that looks at them.
        options: of `edge-cl init`, as a person types them.
        is_mirror: a mirrored picture means the same thing.
        unpack: writes DIR/train/CLASS/FILE and DIR/test/CLASS/FILE, at most so many of a class and part.
        strangers: returns pictures of nothing that is taught; may write them into the folder it is handed.
    """

    kinds: str
    pictures: str
    network: Path
    options: tuple[str, ...]
    is_mirror: bool
    unpack: Callable[[Path, dict[str, int]], int]
    strangers: Callable[[Path], list[Path]]


def waste() -> Story:
    """Return the story on photographs of EDGE_CL_DATA."""
    network = photographs.extractor()
    return Story(
        kinds="kinds of waste",
        pictures="photographs",
        network=network,
        options=("--backbone", str(network)),
        is_mirror=True,
        unpack=partial(photographs.unpack, SET),
        strangers=lambda folder: photographs.strangers(),
    )


def handwriting() -> Story:
    """Return the story that needs no download; a mirrored digit is another one, or none."""
    network = shipped.find()
    if network is None:
        raise SystemExit(f"{shipped.BACKBONE} is missing in models/: bring it back, or set EDGE_CL_DATA")
    return Story(
        kinds="handwritten digits",
        pictures="digits",
        network=network,
        options=("--no-mirror",),
        is_mirror=False,
        unpack=digits.unpack,
        strangers=digits.strangers,
    )


class Device:
    """The command line on one state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._command = [sys.executable, "-m", "edge_cl.cli"]

    def run(self, *words: str) -> dict[str, Any]:
        """Run a command to its end and return what it says with --json."""
        done = subprocess.run(self._words(words), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"edge-cl {words[0]} ended with {done.returncode}: {done.stderr.strip()}")
        return dict(json.loads(done.stdout))

    def say(self, *words: str) -> str:
        """Run a command and return what it tells a person."""
        done = subprocess.run(self._words(words)[:-1], capture_output=True, text=True, check=True)
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command and return without waiting."""
        return subprocess.Popen(self._words(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def remembered(self) -> int:
        """Return how many pictures the learner has acknowledged."""
        return int(self.run("status")["samples"])

    def acknowledged(self) -> int:
        """Count them in the log, beside the process that writes it: quick enough to pull the plug in time."""
        with open_store(self.state, None, read_only=True) as store:
            return len(store.samples())

    def _words(self, words: Sequence[str]) -> list[str]:
        return [*self._command, *words, "--state", str(self.state), "--json"]


def main() -> None:
    story = waste() if photographs.are_here(SET) else handwriting()
    start, home = time.monotonic(), Path(tempfile.mkdtemp(prefix="edge-cl-demo-"))
    photos, device = home / "photos", Device(home / "state")
    story.unpack(photos, PICTURES)
    classes = sorted(path.name for path in (photos / "train").iterdir())
    act(1, "A learner is born")
    _make(device, story)
    act(2, f"It is taught {len(classes)} {story.kinds}, one after the other, and no picture twice")
    reached = [_teach(device, story, photos, classes, number) for number in range(len(classes))]
    act(3, f"It is asked about {story.pictures} it has never seen")
    _ask(device, photos, classes, story.strangers(home / "strangers"))
    act(4, "It says what it knows, and what it does not")
    _explain(device)
    act(5, "Beside the learners people would use instead")
    picture = _compare(story, photos, classes, reached, home)
    shutil.rmtree(photos)
    print(f"\nThat took {time.monotonic() - start:.0f} s. The picture: {picture}")
    print(f"The learner is yours to play with: edge-cl predict YOUR.jpg --state {device.state}")


def act(number: int, title: str) -> None:
    print(f"\n{number}. {title}\n", flush=True)


def _make(device: Device, story: Story) -> None:
    typed = " ".join(Path(word).name for word in story.options)
    print(f"  $ edge-cl init {typed}")
    made = device.run("init", *story.options)["backbone"]
    print(f"  {_backbone_words(made, story.network.stat().st_size)}; it knows nothing yet")


def _backbone_words(made: dict[str, Any], size_bytes: int) -> str:
    sees = f"{made['feature_size']} values a picture, {made['feature_dtype']}"
    return f"{made['name']}: {size_bytes / 1e6:.1f} MB, {sees}"


def _teach(device: Device, story: Story, photos: Path, classes: Sequence[str], number: int) -> float:
    """Teach one class, through a kill where that is due; return the accuracy on all classes so far."""
    label = classes[number]
    files = [str(path) for path in sorted((photos / "train" / label).iterdir())]
    if number == KILLED:
        _kill(device, story, label, files)
    if sys.stdout.isatty():
        print(f"  {label:10} is being taught ...", end="\r", flush=True)
    start = time.monotonic()
    device.run("learn", "--label", label, *files)
    took = time.monotonic() - start
    right, asked = _score(device, photos, classes[: number + 1])
    bar, share = "#" * round(BAR * right / asked), 100 * right / asked
    print(
        f"  {label:10} {len(files)} {story.pictures}, {took:4.1f} s   {bar:.<{BAR}} {share:5.1f} %"
        f" of {asked} unseen {story.pictures} of {number + 1} kind{'s' if number else ''}",
        flush=True,
    )
    return right / asked


def _score(device: Device, photos: Path, classes: Sequence[str]) -> tuple[int, int]:
    files = [path for label in classes for path in sorted((photos / "test" / label).iterdir())]
    told = device.run("predict", *map(str, files))["predictions"]
    # The best taught class counts, as for the peers, who cannot say "unknown".
    return sum(found["best"] == path.parent.name for found, path in zip(told, files, strict=True)), len(files)


def _kill(device: Device, story: Story, label: str, files: Sequence[str]) -> None:
    """Pull the plug in the middle of a class, and show that nothing acknowledged is lost."""
    before = device.acknowledged()
    process = device.start("learn", "--label", label, *files)
    known = before
    while known == before and process.poll() is None:
        time.sleep(POLL_S)
        known = device.acknowledged()
    if process.poll() is not None:
        print(f"  (this machine learned {label} before the plug could be pulled)")
        return
    process.kill()
    process.wait()
    print(f"\n  kill -9, in the middle of {label}: {known} {story.pictures} were acknowledged by then")
    after = device.remembered()
    if after < known:
        raise SystemExit(f"{known - after} acknowledged pictures are lost: this is a bug, please report it")
    print(f"  started again: {after} are there, none is lost; the same command goes on where it was\n")


def _ask(device: Device, photos: Path, classes: Sequence[str], strange: Sequence[Path]) -> None:
    seen = [path for label in classes for path in sorted((photos / "test" / label).iterdir())[-SHOWN:]]
    told = device.run("predict", *map(str, [*seen, *strange]))["predictions"]
    for path, found in zip([*seen, *strange], told, strict=True):
        truth = path.parent.name if path in seen else ""
        print(f"  {path.name:16} {answer(found):58} {mark(found, truth)}")


def answer(found: dict[str, Any]) -> str:
    best = f"{found['best']} {100 * found['probability']:.0f} %"
    if found["unknown"]:
        return f"unknown (nearest: {best})"
    return f"{best}, then {found['second']} {100 * found['second_probability']:.0f} %"


def mark(found: dict[str, Any], truth: str) -> str:
    if not truth:
        return "right: it was never taught" if found["unknown"] else "wrong: it was never taught"
    if found["unknown"]:
        return f"cautious: it is {truth}"
    return "right" if found["label"] == truth else f"wrong: it is {truth}"


def _explain(device: Device) -> None:
    print("  $ edge-cl status")
    lines = [line for line in device.say("status").splitlines()[2:] if line.strip()]
    for line in lines[:STATUS_LINES]:
        print(f"  {line}")
    if len(lines) > STATUS_LINES:
        print(f"  ... and {len(lines) - STATUS_LINES} lines more")


def _compare(
    story: Story, photos: Path, classes: Sequence[str], reached: Sequence[float], home: Path
) -> Path:
    """Teach the peers the same, draw everybody, and return the picture's path."""
    print(f"  the others see the same {story.pictures}, in the same order ...", flush=True)
    data = photographs.embed(photos, home / "features.db", story.network, story.is_mirror)
    tasks = tuple(
        np.flatnonzero([label == name for label in data.train.labels]).astype(np.intp) for name in classes
    )
    groups = np.array([classes.index(label) for label in data.test.labels], dtype=np.intp)
    curves = {"edge": list(reached)}
    for name, peer in PEERS.items():
        learner = peer(data.space, PeerConfig())
        trial = run_trial(
            learner, Plan(tasks, groups), data.train, data.test, TrialConfig(), time.perf_counter
        )
        curves[name] = list(trial.accuracy_per_task)
    (home / "features.db").unlink()
    for name, curve in sorted(curves.items(), key=lambda item: -item[1][-1]):
        print(f"  {TITLES[name]:20} {'#' * round(BAR * curve[-1]):.<{BAR}} {100 * curve[-1]:5.1f} %")
    print("  (joint keeps every picture and trains anew on all of them: it is the upper line, not a rival)")
    return _draw(story, curves, classes, home / "accuracy_per_task.png")


def _draw(story: Story, curves: dict[str, list[float]], classes: Sequence[str], path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.6, 4.6))
    for name in reversed(curves):
        is_ours = name == "edge"
        axes.plot(
            range(1, len(classes) + 1), curves[name], "--" if name == "joint" else "-",
            color=COLOURS[name], label=TITLES[name], linewidth=2.6 if is_ours else 1.4,
            marker="o" if is_ours else None, zorder=3 if is_ours else 2,
        )  # fmt: skip
    axes.axvline(KILLED + 0.65, color="#999999", linewidth=1, linestyle=":")
    axes.text(
        KILLED + 0.68, 0.02, "killed here", fontsize=9, color="#777777", transform=axes.get_xaxis_transform()
    )
    axes.set_xticks(range(1, len(classes) + 1), [f"+ {name}" for name in classes])
    axes.set_ylabel(f"accuracy on unseen {story.pictures}, all kinds so far")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], names[::-1], frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
