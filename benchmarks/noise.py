"""Wrong labels: what they cost, and how many the label audit finds.

Claim: 10 % wrong labels cost at most 2 points of final accuracy, 20 % at most 4; the audit finds at least
70 % of them, and at least half of what it suspects is wrong.

Method: the trials of accuracy.py (edge learner, whole picture), with a share of the labels of each task
replaced by another class taught by the end of that task. The cost is taken seed by seed against the same
trial without noise. Recall and precision are those of the suspects at the end; what has left the rehearsal
memory by then counts as not found. "Without audit" is the same learner believing every label.

Expected time: with 3 seeds about 10 minutes on one core.

    python benchmarks/noise.py [--seeds 2] [--jobs 2] [--write]
"""

import argparse
import itertools
import json
from collections.abc import Sequence

import ledger
import photographs
import trials
from ledger import Row
from trials import Job, Outcome, mean

SHARES = (0.0, 0.05, 0.10, 0.20)
COSTS = {0.10: 0.02, 0.20: 0.04}  # of final accuracy, at most
RECALL, PRECISION = 0.70, 0.50  # of the audit, at least
BELIEVING = json.dumps({"audit": False})
COLOURS = {"trashnet": "#c1272d", "signdigits": "#2a6f97", "packages": "#e9a03b"}


def jobs(sets: Sequence[str], seeds: int) -> list[Job]:
    """Return every trial; without audit only at the largest share."""
    every = [
        Job(name, "edge", seed, noise=share)
        for name, share, seed in itertools.product(sets, SHARES, range(seeds))
    ]
    return every + [
        Job(name, "edge", seed, noise=SHARES[-1], options=BELIEVING)
        for name, seed in itertools.product(sets, range(seeds))
    ]


def costs(found: dict[Job, Outcome], name: str, share: float, options: str = "{}") -> list[float]:
    """Return what a share of wrong labels costs in final accuracy, for each seed."""
    chosen = [job for job in found if (job.set, job.noise, job.options) == (name, share, options)]
    clean = {job.seed: found[job] for job in found if (job.set, job.noise) == (name, 0.0)}
    return [clean[job.seed]["final"]["1"] - found[job]["final"]["1"] for job in chosen]


def audits(found: dict[Job, Outcome], name: str, share: float) -> tuple[float, float]:
    """Return recall and precision of the audit, all seeds together."""
    chosen = [found[job] for job in found if (job.set, job.noise, job.options) == (name, share, "{}")]
    right = sum(outcome["suspects_wrong"] for outcome in chosen)
    suspects, wrong = (sum(outcome[key] for outcome in chosen) for key in ("suspects", "wrong"))
    return right / max(wrong, 1), right / suspects if suspects else 1.0


def in_memory(found: dict[Job, Outcome], name: str, share: float) -> float:
    """Return which share of the wrong labels that are still in memory the audit suspects."""
    chosen = [found[job] for job in found if (job.set, job.noise, job.options) == (name, share, "{}")]
    live = sum(outcome["wrong_live"] for outcome in chosen)
    return sum(outcome["suspects_wrong_live"] for outcome in chosen) / max(live, 1)


def rows(found: dict[Job, Outcome], name: str) -> list[Row]:
    """Hold one set against its targets."""
    lines = []
    for share in SHARES[1:]:
        words, cost = f"{100 * share:.0f} % wrong labels", mean(costs(found, name, share))
        if share in COSTS:
            lines.append(ledger.at_most(f"{words}: cost in accuracy", cost, COSTS[share], digits=4))
        else:
            lines.append(Row(f"{words}: cost in accuracy", f"{cost:.4f}"))
        recall, precision = audits(found, name, share)
        note = f" ({in_memory(found, name, share):.3f} of those in memory)"
        lines.append(ledger.at_least(f"{words}: share of them found", recall, RECALL, note=note))
        lines.append(ledger.at_least(f"{words}: suspects that are wrong", precision, PRECISION))
    believing = mean(costs(found, name, SHARES[-1], BELIEVING))
    lines.append(Row(f"{100 * SHARES[-1]:.0f} % wrong labels, audit off: cost", f"{believing:.4f}"))
    clean = [found[job] for job in found if (job.set, job.noise) == (name, 0.0)]
    lines.append(Row("suspects on clean labels, a run", f"{mean(o['suspects'] for o in clean):.1f}"))
    return lines


def plot(found: dict[Job, Outcome], sets: Sequence[str]) -> str:
    """Draw cost, recall and precision against the share of wrong labels; return the file's name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.4, 3.8))
    shares = [100 * share for share in SHARES]
    for name in sets:
        title, colour = photographs.SETS[name].title, COLOURS[name]
        points = [100 * mean(costs(found, name, share)) for share in SHARES]
        left.plot(shares, points, marker="o", markersize=4, color=colour, label=title)
        found_by = [audits(found, name, share) for share in SHARES[1:]]
        right.plot(
            shares[1:],
            [recall for recall, _ in found_by],
            marker="o",
            markersize=4,
            color=colour,
            label=title,
        )
        right.plot(shares[1:], [precision for _, precision in found_by], "--", color=colour, linewidth=1.2)
    left.plot(
        [100 * share for share in COSTS], [100 * cost for cost in COSTS.values()], "v",
        color="#222222", label="allowed",
    )  # fmt: skip
    left.set_ylabel("points of final accuracy lost")
    right.axhline(RECALL, color="#222222", linewidth=0.8)
    right.text(SHARES[1] * 100, RECALL + 0.01, "recall wanted", fontsize=8, va="bottom")
    right.set_ylim(0, 1.02)
    right.set_ylabel("audit: recall (line), precision (dashed)")
    for axes in (left, right):
        axes.set_xlabel("wrong labels, %")
        axes.set_xticks(shares)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    file = "label_noise.png"
    figure.savefig(ledger.PLOTS / file, dpi=130)
    pyplot.close(figure)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trials.add_options(parser, seeds=2)
    args = parser.parse_args()
    found = trials.run(jobs(args.sets, args.seeds), args)
    lines = [f"Mean of {args.seeds} seeds.", ""]
    lines += (
        [f"![Cost of wrong labels, and what the audit finds](plots/{plot(found, args.sets)})"]
        if args.write
        else []
    )
    for name in args.sets:
        title = photographs.SETS[name].title
        ledger.show(title, rows(found, name))
        lines += ["", f"**{title}**", "", *ledger.rows_table(rows(found, name))]
    if args.write:
        ledger.write("noise", f"python benchmarks/noise.py --seeds {args.seeds} --write", lines)


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
