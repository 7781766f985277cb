"""Codistillation: two peers that match each other's stale predictions, against one model and two averaged.

Claims: a codistilled peer reaches the final accuracy of a model that trained alone in at most 0.75 of its
steps; two retrains of a codistilled peer differ at least 25 % less than two retrains of a model alone.

Method: CIFAR-10 at 32 px, 200 pictures of each class to learn from, 100 to ask about; the separable net at
half width, mirror images, batches of 16. Budgets of steps, each with its own whole cosine schedule, are
trained from scratch: all of --steps and 0.75 of them. Peers see the same pictures in different order from
different first weights, alone for the first 0.4 of the steps, and exchange through a folder every 10 steps.
A model alone is the same code with one peer. The ensemble is the mean of two models alone. Churn is
measured between retrains with all seeds changed: mean total variation 1/2 sum |p1 - p2|, for two classes
|p1 - p2|, and the share of pictures whose answer flips. The interval between exchanges is varied at the
whole budget; 1,000 steps are more than there are, so peers then hear each other's state at the end of the
burn-in and nothing after it.

Expected: all three targets are missed so early in training (accuracy 0.36): 0.95 of the steps, a fifth less
variation, as many flips. Anil et al. 2018: 0.73 of the steps (ImageNet) and 35 % less churn (Criteo).
Expected time: 15 minutes on one idle core; trials are kept in --cache, and a run that was stopped
goes on.

    python benchmarks/codistillation.py [--seeds 3] [--steps 800] [--write]
"""

import argparse
import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cifar
import ledger
import numpy as np
from trials import mean

import host_trainer
from edge_cl.commands.evaluate import default_cache

SPEC = "separable:0.5/32"
PER_CLASS, ASKED = 200, 100  # pictures of each class: to learn from, to ask about
BATCH = 16
BURN_IN = 0.4  # of the steps; Anil et al.: 3,000 of 7,250
SHARES = (0.75, 1.0)  # of the steps
INTERVALS = (1, 10, 100, 1000)
USUAL = 10  # steps between exchanges where nothing else is said
STEPS_TARGET, CHURN_TARGET = 0.75, 0.25
PLOT = "codistillation.png"
CODE = ("distillation/codistillation/learner.py", "distillation/losses.py", "backbones/networks.py")


class Trial(NamedTuple):
    """One training from scratch: how many peers, seed, steps, and steps between exchanges."""

    peers: int
    seed: int
    steps: int
    interval: int

    def file(self, cache: Path) -> Path:
        """Return where its answers are kept; other code or other settings, another file."""
        root = Path(host_trainer.__file__).parent
        digest = hashlib.sha256(json.dumps([self, SPEC, PER_CLASS, ASKED, BATCH, BURN_IN]).encode())
        for name in CODE:
            digest.update((root / name).read_bytes())
        return cache / f"codistillation-{digest.hexdigest()[:16]}.npy"


def trials(seeds: int, steps: int, intervals: Sequence[int]) -> list[Trial]:
    """Return every trial, those that decide a claim first."""
    budgets = [round(share * steps) for share in SHARES]
    alone = [Trial(1, seed, budget, USUAL) for budget in budgets for seed in range(seeds)]
    pairs = [Trial(2, seed, budget, USUAL) for budget in budgets for seed in range(seeds)]
    others = [Trial(2, 0, steps, interval) for interval in intervals if interval != USUAL]
    return [*alone, *pairs, *others]


class Workshop:
    """Trains trials; a network is compiled once for each place and budget, and begun anew for each trial."""

    def __init__(self, data: cifar.Cifar) -> None:
        """Take the pictures."""
        self.data = data
        self._peers: dict[tuple[int, int], Any] = {}

    def answers(self, trial: Trial) -> np.ndarray:
        """Train a trial; return what each peer says of the unseen pictures: (P, N, C) probabilities."""
        from host_trainer.distillation.codistillation.engines import in_turn
        from host_trainer.distillation.losses import probabilities
        from host_trainer.network import to_input
        from host_trainer.training.gradients import predict

        with tempfile.TemporaryDirectory(prefix="edge-cl-") as folder:
            crew = [self._peer(trial, number, Path(folder)) for number in range(trial.peers)]
            while not crew[0].is_done:
                in_turn(crew)
        images = to_input(self.data.test.values[:, 0], (-1.0, 1.0))
        logits = [predict(peer.finish().model, images) for peer in crew]
        return np.stack([np.asarray(probabilities(each)) for each in logits])

    def _peer(self, trial: Trial, number: int, folder: Path) -> Any:
        """Return a peer at step 0 of a trial."""
        from host_trainer.distillation.codistillation.learner import Peer

        place = (number, trial.steps)
        first = self._draw(trial.seed + 1000 * number)
        if place not in self._peers:
            peer = Peer(self._seat(trial, number, folder, first))
            blank = [np.asarray(variable.value).copy() for variable in peer._optimizer.variables]
            self._peers[place] = (peer, blank)
        peer, blank = self._peers[place]
        model = peer.seat.job.network.model
        peer.seat = self._seat(trial, number, folder, model)
        model.set_weights(first.get_weights())
        for variable, value in zip(peer._optimizer.variables, blank, strict=True):
            variable.assign(value)
        peer._stepper.resume()
        peer.step, peer.held = 0, {}
        return peer

    def _seat(self, trial: Trial, number: int, folder: Path, model: Any) -> Any:
        from host_trainer.distillation.codistillation.exchange import FolderStore
        from host_trainer.distillation.codistillation.learner import Seat, codistillation_loss
        from host_trainer.distillation.codistillation.schedule import Schedule
        from host_trainer.network import Network
        from host_trainer.training.trainer import Job, Recipe

        seed = trial.seed + 1000 * number
        recipe = Recipe(steps=trial.steps, batch=BATCH, seed=seed)
        network = Network(model, self.data.train.pictures.classes)
        job = Job(network, codistillation_loss(), self._source(seed), recipe, {})
        schedule = Schedule(round(BURN_IN * trial.steps), trial.interval)
        return Seat(number, trial.peers, job, schedule, FolderStore(folder), folder / "none")

    def _source(self, seed: int) -> Any:
        from host_trainer.datasets.batches import batch_indices
        from host_trainer.network import to_input

        train = self.data.train
        labels = np.eye(len(train.pictures.classes), dtype=np.float32)[train.pictures.labels]

        def source(step: int) -> dict[str, np.ndarray]:
            chosen = batch_indices(len(train.values), BATCH, step, seed)
            views = np.random.default_rng((seed, step)).integers(0, 2, BATCH)
            return {"images": to_input(train.values[chosen, views], (-1.0, 1.0)), "labels": labels[chosen]}

        return source

    def _draw(self, seed: int) -> Any:
        from host_trainer.backbones.networks import build, parse_spec, with_head

        return with_head(build(parse_spec(SPEC), seed), len(self.data.train.pictures.classes), seed)


def run(wanted: Sequence[Trial], cache: Path) -> dict[Trial, np.ndarray]:
    """Return the answers of every trial; those that are kept are not trained again."""
    cache.mkdir(parents=True, exist_ok=True)
    workshop: Workshop | None = None
    for trial in wanted:
        file = trial.file(cache)
        if file.exists():
            continue
        workshop = workshop or Workshop(cifar.load(PER_CLASS, ASKED))
        found = workshop.answers(trial)
        np.save(file.with_suffix(".part.npy"), found)
        file.with_suffix(".part.npy").replace(file)
        print(trial, f"{accuracy(found):.3f}", flush=True)
    return {trial: np.load(trial.file(cache), allow_pickle=False) for trial in wanted}


def truth() -> np.ndarray:
    """Return the classes of the unseen pictures, (N,): ASKED of each, in order."""
    return np.repeat(np.arange(10), ASKED)


def accuracy(answers: np.ndarray) -> float:
    """Return the share of right answers, the mean of all peers: (P, N, C)."""
    return float(np.mean(answers.argmax(-1) == truth()))


def ensemble(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the answers of two models alone together, (1, N, C) each."""
    return (one + two) / 2


def churn(retrains: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return mean total variation and share of flips between the first peers of every two retrains."""
    apart, flips = [], []
    for one, two in itertools.combinations([each[0] for each in retrains], 2):
        apart.append(float(np.mean(0.5 * np.abs(one - two).sum(-1))))
        flips.append(float(np.mean(one.argmax(-1) != two.argmax(-1))))
    return mean(apart), mean(flips)


class Finding(NamedTuple):
    """What came out.

    Attributes:
        curves: accuracies by learner and budget, a value a seed: {"alone": {240: [...], 320: [...]}}.
        churns: (total variation, flips) by learner.
        intervals: accuracy of seed 0's pair by interval.
    """

    curves: dict[str, dict[int, list[float]]]
    churns: dict[str, tuple[float, float]]
    intervals: dict[int, float]


def findings(found: dict[Trial, np.ndarray], seeds: int, steps: int, intervals: Sequence[int]) -> Finding:
    """Sort the answers into figures."""
    curves: dict[str, dict[int, list[float]]] = {"alone": {}, "ensemble": {}, "codistilled": {}}
    for budget in (round(share * steps) for share in SHARES):
        alone = [found[Trial(1, seed, budget, USUAL)] for seed in range(seeds)]
        curves["alone"][budget] = [accuracy(each) for each in alone]
        curves["ensemble"][budget] = [
            accuracy(ensemble(alone[s], alone[(s + 1) % seeds])) for s in range(seeds)
        ]
        curves["codistilled"][budget] = [accuracy(found[Trial(2, s, budget, USUAL)]) for s in range(seeds)]
    churns = {
        "alone": churn([found[Trial(1, seed, steps, USUAL)] for seed in range(seeds)]),
        "codistilled": churn([found[Trial(2, seed, steps, USUAL)] for seed in range(seeds)]),
    }
    by_interval = {interval: accuracy(found[Trial(2, 0, steps, interval)]) for interval in sorted(intervals)}
    return Finding(curves, churns, by_interval)


def verdicts(finding: Finding, steps: int) -> list[ledger.Row]:
    """Hold the figures against the claims."""
    curves, early = finding.curves, round(SHARES[0] * steps)
    final = mean(curves["alone"][steps])
    rows = []
    for learner, words in (
        ("alone", "one model"),
        ("ensemble", "two models averaged"),
        ("codistilled", "a peer"),
    ):
        for budget in (early, steps):
            rows.append(
                ledger.Row(f"accuracy, {words}, {budget} steps", cifar.mean_std(curves[learner][budget]))
            )
    lead = mean(curves["codistilled"][early]) - final
    rows.append(ledger.at_least(f"a peer at {SHARES[0]:g} of the steps less one model at all", lead, 0.0, 4))
    rows.append(_steps_row(curves["codistilled"], final, steps))
    (apart, flips), (apart_pair, flips_pair) = finding.churns["alone"], finding.churns["codistilled"]
    rows.append(ledger.Row("churn between retrains, one model", f"{apart:.3f}, {flips:.1%} flip"))
    rows.append(ledger.Row("churn between retrains, a peer", f"{apart_pair:.3f}, {flips_pair:.1%} flip"))
    rows.append(ledger.at_least("churn lower by (mean |p1 - p2|)", 1 - apart_pair / apart, CHURN_TARGET))
    rows.append(ledger.at_least("churn lower by (flips)", 1 - flips_pair / flips, CHURN_TARGET))
    for interval, reached in finding.intervals.items():
        rows.append(
            ledger.Row(f"accuracy of a peer, exchange every {interval} steps, seed 0", f"{reached:.3f}")
        )
    return rows


def _steps_row(curve: dict[int, list[float]], final: float, steps: int) -> ledger.Row:
    """Say at which share of the steps a peer is as good as one model at the end, straight between budgets."""
    claim, target = "share of the steps to one model's final accuracy", f"<= {STEPS_TARGET:g}"
    (early, low), (late, high) = ((budget / steps, mean(values)) for budget, values in sorted(curve.items()))
    if low >= final:
        return ledger.Row(claim, f"at most {early:.2f}", target, early <= STEPS_TARGET)
    if high < final:
        return ledger.Row(claim, "more than 1", target, False)
    share = early + (late - early) * (final - low) / (high - low)
    return ledger.Row(claim, f"{share:.2f}", target, share <= STEPS_TARGET)


def plot(finding: Finding) -> str:
    """Draw accuracy by budget, churn, and accuracy by interval; return the file's name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11.5, 3.7))
    titles = {"alone": "one model", "ensemble": "two models averaged", "codistilled": "codistilled peer"}
    colours = {"alone": "#8c8c8c", "ensemble": "#2a6f97", "codistilled": "#c1272d"}
    for learner, curve in finding.curves.items():
        budgets = sorted(curve)
        for budget in budgets:
            left.plot([budget] * len(curve[budget]), curve[budget], ".", color=colours[learner], alpha=0.45)
        left.plot(
            budgets, [mean(curve[b]) for b in budgets], "o-", color=colours[learner], label=titles[learner]
        )
    left.set_xticks(sorted(finding.curves["alone"]))
    left.set(xlabel="steps of training", ylabel="accuracy on unseen pictures", title="Accuracy by budget")
    left.legend(frameon=False, fontsize=8)
    places = np.arange(2)
    for shift, learner in ((-0.18, "alone"), (0.18, "codistilled")):
        middle.bar(
            places + shift, finding.churns[learner], 0.34, color=colours[learner], label=titles[learner]
        )
    middle.set_xticks(places, ["mean |p1 - p2|", "answers that flip"])
    middle.set(title="Churn between two retrains")
    middle.legend(frameon=False, fontsize=8)
    right.semilogx(
        list(finding.intervals), list(finding.intervals.values()), "o-", color=colours["codistilled"]
    )
    alone = finding.curves["alone"][max(finding.curves["alone"])][0]
    right.axhline(alone, color=colours["alone"], linestyle="--")
    right.annotate("one model, seed 0", (1, alone), xytext=(0, 3), textcoords="offset points", fontsize=8)
    right.set(xlabel="steps between exchanges", title="Accuracy by interval (seed 0)")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.tight_layout()
    figure.savefig(ledger.PLOTS / PLOT, dpi=130)
    return PLOT


def _chosen(wanted: Sequence[Trial], only: int) -> Iterator[Trial]:
    return (trial for trial in wanted if only in (0, trial.peers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="retrains, at least 2 (%(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=800, metavar="N", help="of the whole budget (%(default)s)"
    )
    parser.add_argument(
        "--intervals",
        type=int,
        nargs="+",
        default=list(INTERVALS),
        metavar="N",
        help="steps between exchanges, at the whole budget, seed 0",
    )
    parser.add_argument(
        "--only", type=int, default=0, choices=(0, 1, 2), help="train only trials of so many peers"
    )
    parser.add_argument(
        "--cache", type=Path, default=default_cache().parent, help="trials already run (%(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="put the plot and rows into the ledger")
    args = parser.parse_args()
    wanted = trials(args.seeds, args.steps, args.intervals)
    found = run(list(_chosen(wanted, args.only)), args.cache)
    if args.only:
        return
    finding = findings(found, args.seeds, args.steps, args.intervals)
    rows = verdicts(finding, args.steps)
    ledger.show("codistillation", rows)
    if args.write:
        what = f"{SPEC}, {10 * PER_CLASS} pictures, {10 * ASKED} asked about, batches of {BATCH}."
        lines = [
            what,
            "",
            f"![Accuracy, churn, interval](plots/{plot(finding)})",
            "",
            *ledger.rows_table(rows),
        ]
        command = f"python benchmarks/codistillation.py --seeds {args.seeds} --steps {args.steps} --write"
        ledger.write("codistillation", command, lines)


if __name__ == "__main__":
    cifar.on_one_core()
    main()
