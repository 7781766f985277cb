"""`host-trainer export`: a trained network for one target, proven to answer as before, with its card."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge_cl.errors import ConfigError
from host_trainer.chatter import quiet_tensorflow
from host_trainer.commands.terminal import AsJson, print_json, say

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A folder that host-trainer wrote, or a .tflite file.", show_default=False
    ),
]
To = Annotated[str, typer.Option("--target", metavar="NAME", help="litert, edgetpu, onnx or tensorrt.")]
Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Pictures: train/CLASS/* and test/CLASS/*, or CLASS/*.",
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", metavar="DIR", help="Folder for the result; must not be there yet.", show_default=False
    ),
]
How = Annotated[
    str | None,
    typer.Option(
        "--quantise",
        metavar="HOW",
        help="ptq, qat, float16, dynamic or none; by default what the target likes.",
    ),
]
Steps = Annotated[int, typer.Option("--qat-steps", metavar="N", min=0, help="Fine-tuning steps of qat.")]
Cosine = Annotated[
    float | None,
    typer.Option("--gate-cosine", metavar="COSINE", help="Lowest cosine of any picture's feature (0.95)."),
]
Drop = Annotated[
    float | None,
    typer.Option(
        "--gate-drop",
        metavar="SHARE",
        help="Accuracy that a linear probe may lose beyond chance (ptq 0.01, qat 0.003).",
    ),
]
BoardName = Annotated[
    str, typer.Option("--board", metavar="NAME", help="For tensorrt: nano, tx2, xavier or orin.")
]
KeepFailed = Annotated[bool, typer.Option("--keep-failed", help="Publish also what is under the gate.")]
Cache = Annotated[Path | None, typer.Option("--cache", metavar="DIR", help="Keep decoded pictures here.")]


def export(
    model: Model,
    target: To,
    data: Data,
    out: Out,
    quantise: How = None,
    qat_steps: Steps = 600,
    gate_cosine: Cosine = None,
    gate_drop: Drop = None,
    board: BoardName = "orin",
    keep_failed: KeepFailed = False,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Make a network's file for a target, and prove on pictures that it answers as the network does.

    Exit status 0: published; 1: under the parity gate, nothing is published; 2: bad input.
    """
    quiet_tensorflow()
    from host_trainer.export.parity import Gate
    from host_trainer.export.targets import Order, Quantise, Target, chosen, export
    from host_trainer.quantisation.tuning import Tuning

    order = Order(
        model=model,
        target=_choice(Target, target, "--target"),
        data=data,
        out=out,
        quantise=_choice(Quantise, quantise, "--quantise") if quantise else None,
        tuning=Tuning(steps=qat_steps),
        board=board,
        keep_failed=keep_failed,
        cache=cache,
        command=shlex.join(["host-trainer", *sys.argv[1:]]),
    )
    usual = Gate.of(chosen(order).value)
    gate = Gate(
        usual.cosine_min if gate_cosine is None else gate_cosine,
        usual.accuracy_drop if gate_drop is None else gate_drop,
    )
    outcome = export(replace(order, gate=gate), say)
    if as_json:
        print_json(_result(order, outcome))
    else:
        _show(order, outcome)
    raise typer.Exit(1 if outcome.reasons else 0)


def _choice(kind: Any, text: str, option: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        names = ", ".join(each.value for each in kind)
        raise ConfigError(f"{option} {text!r} is not known: give one of {names}") from error


def _result(order: Any, outcome: Any) -> dict[str, Any]:
    return {
        "target": order.target.value,
        "out": str(order.out) if outcome.published else None,
        "published": outcome.published,
        "passed": not outcome.reasons,
        "reasons": list(outcome.reasons),
        "notes": list(outcome.notes),
        "parity": outcome.parity.to_dict(),
        "files": {name: {"sha256": digest, "bytes": size} for name, (digest, size) in outcome.files.items()},
    }


def _show(order: Any, outcome: Any) -> None:
    from host_trainer.export.targets import Quantise, chosen, in_words

    table = Table("figure", "value", title="parity", title_justify="left")
    for figure, value in in_words(outcome.parity).items():
        table.add_row(figure, value)
    console = Console()
    console.print(table)
    for note in outcome.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    for reason in outcome.reasons:
        say(f"host-trainer: {reason}")
    if outcome.published:
        console.print(f"published in {order.out}", highlight=False, markup=False, soft_wrap=True)
    else:
        hint = "" if chosen(order) is Quantise.QAT else "--quantise qat often helps, "
        say(f"host-trainer: nothing was published; {hint}--keep-failed publishes anyway")
