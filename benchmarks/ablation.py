"""Ablation: what each part of the edge learner is worth, taken away one at a time.

Claim: none; the table shows what carries the accuracy and what does not.

Method: the trials of accuracy.py with one switch changed: TDM off (no stage ever ends), DGM off (every live
block moves), DDR off (no sample is removed), one view taught, audit off, no residual. "Gate" is the
residual's weight at the end. The first row's trial also tells what the whole residual would answer,
whatever the gate says.

Expected time: with 1 seed about 8 minutes on one core.

    python benchmarks/ablation.py [--seeds 1] [--jobs 2] [--write]
"""

import argparse
import itertools
import json
from typing import NamedTuple

import ledger
import photographs
import trials
from trials import Job, Outcome, mean

NEVER = 10**9  # SGD steps; no stage is that long


class Switch(NamedTuple):
    """One way to build the learner: fields that differ from the default."""

    title: str
    options: dict[str, object] = {}
    network: dict[str, object] = {}
    views: int = photographs.VIEWS


SWITCHES = (
    Switch("everything on"),
    Switch("no residual: the base alone", {"residual": False}),
    Switch("no TDM: the mask stays", network={"stage_steps": NEVER}),
    Switch("no DGM: all live blocks move", network={"moving": 1.0}),
    Switch("no DDR: nothing removed", {"removed": 0.0}),
    Switch("no audit", {"audit": False}),
    Switch("one view taught", views=1),
    Switch("density 0.05", network={"density": 0.05}),
    Switch("dense", network={"density": 1.0, "stage_steps": NEVER, "moving": 1.0}),
)


def job(switch: Switch, name: str, seed: int) -> Job:
    """Return the trial of a switch."""
    return Job(
        name, "edge", seed, views=switch.views,
        options=json.dumps(switch.options), network=json.dumps(switch.network),
    )  # fmt: skip


def line(switch: Switch, outcomes: dict[str, list[Outcome]]) -> tuple[str, ...]:
    """Return a row: for each set accuracy by whole picture and by views averaged, and the gate."""
    cells = []
    for found in outcomes.values():
        whole, averaged = (mean(outcome["final"][views] for outcome in found) for views in ("1", "4"))
        cells.append(f"{whole:.3f} / {averaged:.3f} ({mean(outcome['gate'] for outcome in found):.2f})")
    return (switch.title, *cells)


def ungated(outcomes: list[list[Outcome]]) -> tuple[str, ...]:
    """Return the row of the residual at full weight."""
    return (
        "no gate: all of the residual",
        *(f"{mean(o['ungated'] for o in found):.3f}" for found in outcomes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    trials.add_options(parser, seeds=1)
    args = parser.parse_args()
    every = itertools.product(SWITCHES, args.sets, range(args.seeds))
    found = trials.run([job(*each) for each in every], args)
    columns = ("switch", *(f"{photographs.SETS[name].title}" for name in args.sets))
    lines = [
        line(
            switch,
            {name: [found[job(switch, name, seed)] for seed in range(args.seeds)] for name in args.sets},
        )
        for switch in SWITCHES
    ]
    lines.insert(
        1,
        ungated([[found[job(SWITCHES[0], name, seed)] for seed in range(args.seeds)] for name in args.sets]),
    )
    print(f"\nfinal accuracy, whole picture / views averaged (gate); {args.seeds} seeds")
    for cells in lines:
        print(f"  {cells[0]:30}" + "".join(f"{cell:>24}" for cell in cells[1:]))
    if args.write:
        head = "Final accuracy, whole picture / views averaged, and the gate at the end; mean of"
        head += f" {args.seeds} seed(s)."
        command = f"python benchmarks/ablation.py --seeds {args.seeds} --write"
        ledger.write("ablation", command, [head, "", *ledger.table(columns, lines)])


if __name__ == "__main__":
    ledger.on_one_thread()
    main()
