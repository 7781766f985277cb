"""Kaeding's curves: SGD steps an update needs, old data a batch needs, and what wrong labels do.

Kaeding, Rodner, Freytag, Denzler, Fine-tuning Deep Neural Networks in Continuous Learning Scenarios, ACCV
workshops 2016: few steps an update suffice when the network is warm-started, old and new data must be
mixed, and wrong labels up to 10 % hurt little. Reproduced on the three sets, with the fine-tuned network
they had in mind (`replay`: a dense softmax network on the embedding, without an analytic base), and with
the edge learner, whose base cannot forget. lambda is the share of OLD data in a batch, as everywhere here.

Expected: without a base, lambda = 0 forgets nearly everything, however many steps; with old data in the batch
the curves rise with the steps and flatten, and the exact share matters little. With the base the curves lie
close together, near its own accuracy already at few steps, so that 16 would do where power is short.
Expected time: with 1 seed 25 minutes on one core.

    python benchmarks/kaeding.py [--seeds 1] [--jobs 2] [--write]
"""

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

import ledger
import numpy as np
import photographs
import trials
from trials import Job, Outcome, mean

STEPS = (16, 64, 256)  # SGD steps after each update of 64 pictures
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
NOISE = (0.0, 0.05, 0.10, 0.20)
LEARNERS = {"replay": "dense network, no base", "edge": "edge learner"}
SHADES = ("#c6dbef", "#85b7dc", "#3f8fc5", "#1b5f9e", "#0b2f5c")  # lambda 0 to 1
COLOURS = {"replay": "#e9a03b", "edge": "#c1272d"}

Found = dict[Job, Outcome]


def grid(sets: Sequence[str], seeds: int) -> list[Job]:
    """Return the trials of steps against lambda."""
    every = itertools.product(sets, LEARNERS, range(seeds), LAMBDAS, STEPS)
    return [Job(name, learner, seed, lam=lam, steps=steps) for name, learner, seed, lam, steps in every]


def noisy(sets: Sequence[str], seeds: int) -> list[Job]:
    """Return the trials of wrong labels, everything else as each learner has it."""
    every = itertools.product(sets, LEARNERS, range(seeds), NOISE)
    return [Job(name, learner, seed, noise=share) for name, learner, seed, share in every]


def reached(
    found: Found, name: str, learner: str, lam: float | None, steps: int | None, noise: float, kind: str
) -> float:
    """Return the mean final accuracy over seeds, whole picture, of one setting."""
    chosen = [
        outcome
        for job, outcome in found.items()
        if (job.set, job.learner, job.lam, job.steps, job.noise) == (name, learner, lam, steps, noise)
    ]
    return mean(outcome["ungated"] if kind == "ungated" else outcome["final"]["1"] for outcome in chosen)


def curve(found: Found, name: str, learner: str, lam: float, kind: str = "final") -> list[float]:
    """Return accuracy at each number of steps."""
    return [reached(found, name, learner, lam, steps, 0.0, kind) for steps in STEPS]


def plot_grid(found: Found, sets: Sequence[str]) -> str:
    """Draw accuracy against steps, a line for each lambda; return the file's name."""
    pyplot = _pyplot()
    rows = [
        ("replay", "final", LEARNERS["replay"]),
        ("edge", "ungated", "edge, whole residual"),
        ("edge", "final", "edge, gated residual"),
    ]
    figure, places = pyplot.subplots(
        len(rows), len(sets), figsize=(3.6 * len(sets), 8.6), sharex=True, squeeze=False
    )
    for (learner, kind, title), line in zip(rows, places, strict=True):
        for name, axes in zip(sets, line, strict=True):
            for lam, shade in zip(LAMBDAS, SHADES, strict=True):
                axes.plot(
                    STEPS, curve(found, name, learner, lam, kind), marker="o", markersize=4, color=shade,
                    label=f"{lam:g}",
                )  # fmt: skip
            _tidy(axes)
            axes.set_xscale("log", base=4)
            axes.set_xticks(STEPS, [str(steps) for steps in STEPS])
            axes.minorticks_off()
        line[0].set_ylabel(f"{title}\nfinal accuracy (own scale)", fontsize=9)
    for edge_rows in zip(*places[1:], strict=True):  # one scale for both, finer than the network's
        limits = np.array([axes.get_ylim() for axes in edge_rows])
        for axes in edge_rows:
            axes.set_ylim(limits[:, 0].min(), limits[:, 1].max() + 0.04 * np.ptp(limits))
    for name, axes in zip(sets, places[0], strict=True):
        axes.set_title(photographs.SETS[name].title, fontsize=11)
    for axes in places[-1]:
        axes.set_xlabel("SGD steps an update")
    handles, names = places[0][0].get_legend_handles_labels()
    figure.legend(
        handles, names, title="lambda: share of old data in a batch", loc="lower center",
        ncols=len(LAMBDAS), frameon=False, fontsize=9, title_fontsize=9,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return _save(figure, "kaeding_steps_lambda.png")


def plot_noise(found: Found, sets: Sequence[str]) -> str:
    """Draw accuracy against the share of wrong labels; return the file's name."""
    pyplot = _pyplot()
    figure, places = pyplot.subplots(1, len(sets), figsize=(3.6 * len(sets), 3.4), squeeze=False)
    for name, axes in zip(sets, places[0], strict=True):
        for learner, title in LEARNERS.items():
            axes.plot(
                [100 * share for share in NOISE], noise_curve(found, name, learner), marker="o",
                markersize=4, color=COLOURS[learner], label=title,
            )  # fmt: skip
        _tidy(axes)
        axes.set_title(photographs.SETS[name].title, fontsize=11)
        axes.set_xlabel("wrong labels, %")
        axes.set_xticks([100 * share for share in NOISE])
    places[0][0].set_ylabel("final accuracy")
    places[0][0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    return _save(figure, "kaeding_noise.png")


def noise_curve(found: Found, name: str, learner: str) -> list[float]:
    """Return accuracy at each share of wrong labels."""
    return [reached(found, name, learner, None, None, share, "final") for share in NOISE]


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _tidy(axes: Any) -> None:
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, name: str) -> str:
    figure.savefig(ledger.PLOTS / name, dpi=130)
    _pyplot().close(figure)
    return name


def grid_table(found: Found, name: str) -> list[tuple[str, ...]]:
    """Return a line for each learner and lambda, a column for each number of steps."""
    return [
        (title, f"{lam:g}", *(f"{value:.3f}" for value in curve(found, name, learner, lam)))
        for learner, title in LEARNERS.items()
        for lam in LAMBDAS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trials.add_options(parser, seeds=1)
    args = parser.parse_args()
    found = trials.run([*grid(args.sets, args.seeds), *noisy(args.sets, args.seeds)], args)
    lines = [f"Final accuracy, whole picture; mean of {args.seeds} seed(s)."]
    if args.write:
        lines += ["", f"![Steps and lambda](plots/{plot_grid(found, args.sets)})"]
        lines += ["", f"![Wrong labels](plots/{plot_noise(found, args.sets)})"]
    for name in args.sets:
        title = photographs.SETS[name].title
        columns = ("learner", "lambda", *(f"{steps} steps" for steps in STEPS))
        print(f"\n{title}: final accuracy by lambda and steps")
        for cells in grid_table(found, name):
            print("  {:24} {:>6}".format(*cells) + "".join(f"{cell:>8}" for cell in cells[2:]))
        lines += ["", f"**{title}**", "", *ledger.table(columns, grid_table(found, name))]
    columns = ("set", "learner", *(f"{100 * share:.0f} % wrong" for share in NOISE))
    noise = [
        (
            photographs.SETS[name].title,
            words,
            *(f"{value:.3f}" for value in noise_curve(found, name, learner)),
        )
        for name in args.sets
        for learner, words in LEARNERS.items()
    ]
    print("\nfinal accuracy by share of wrong labels " + ", ".join(f"{share:g}" for share in NOISE))
    for cells in noise:
        print("  {:18} {:24}".format(*cells) + "".join(f"{cell:>8}" for cell in cells[2:]))
    lines += ["", "**Wrong labels**", "", *ledger.table(columns, noise)]
    if args.write:
        ledger.write("kaeding", f"python benchmarks/kaeding.py --seeds {args.seeds} --write", lines)


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
