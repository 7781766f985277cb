"""`host-trainer check-edgetpu`: tells op by op what of a TFLite file runs on a Coral, and what to mend."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edge_cl.errors import EngineError
from edge_cl.vision.files import shown
from host_trainer.commands.terminal import AsJson, print_json
from host_trainer.export.edgetpu.compiler import Report, compile_model, find_compiler
from host_trainer.export.edgetpu.constraints import Refusal
from host_trainer.export.edgetpu.executable import Compiled, read_compiled
from host_trainer.export.edgetpu.graph import load_model, read_graph
from host_trainer.export.edgetpu.mapping import Placement, Verdict, place
from host_trainer.export.edgetpu.memory import CHIP_BYTES, Cache, estimate

KIB = 1024

File = Annotated[Path, typer.Argument(metavar="FILE", help="A TFLite file.", show_default=False)]
WithCompiler = Annotated[
    bool,
    typer.Option("--compile", help="Also run edgetpu_compiler, which must be on the PATH, and read its log."),
]


def check_edgetpu(file: File, compile_too: WithCompiler = False, as_json: AsJson = False) -> None:
    """Say which operations of a TFLite file the Edge TPU runs, and where its compiler would stop.

    Exit status 0: every operation maps; 1: not all do; 2: the file cannot be read.
    """
    data, name = load_model(file), shown(file.name)
    graph = read_graph(data)
    if graph.is_compiled:
        _tell_compiled(name, read_compiled(graph), as_json)
        return
    verdict = place(graph)
    cache = estimate(graph, verdict)
    said = _compiler_says(data) if compile_too else None
    if as_json:
        print_json(_result(name, verdict, cache, said))
    else:
        _tell(Console(), name, verdict, cache, said)
    raise typer.Exit(0 if verdict.maps_fully and not isinstance(said, str) else 1)


def _compiler_says(data: bytes) -> Report | str:
    """Return the compiler's report, or why it made none; having no compiler is an error."""
    find_compiler()
    try:
        return compile_model(data).report
    except EngineError as error:
        return str(error)


def _tell_compiled(name: str, compiled: Compiled, as_json: bool) -> None:
    whole = compiled.left == 0
    if as_json:
        print_json({"file": name, "compiled": True, "maps_fully": whole, **compiled._asdict()})
    else:
        _say(Console(), _compiled_words(name, compiled))
    raise typer.Exit(0 if whole else 1)


def _compiled_words(name: str, compiled: Compiled) -> list[str]:
    left = "all operations" if not compiled.left else f"all but {compiled.left} operations"
    return [
        f"{name}: compiled for the Edge TPU already; {left} are in its part (edgetpu-custom-op).",
        f"Parameters on the chip: {_size(compiled.cached_bytes)}; sent at each inference: "
        f"{_size(compiled.streamed_bytes)}. Needs Edge TPU runtime {compiled.min_runtime} or newer.",
        "It runs on a Coral only. A computer without one needs the file that was compiled.",
    ]


def _tell(console: Console, name: str, verdict: Verdict, cache: Cache, said: Report | str | None) -> None:
    console.print(_table(name, verdict, cache))
    _say(console, [*_verdict_words(verdict), *_doubt_words(verdict), *_cache_words(cache)])
    if said is not None:
        _say(console, [said] if isinstance(said, str) else _report_words(verdict, said))


def _say(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(name: str, verdict: Verdict, cache: Cache) -> Table:
    table = Table("op", "operation", "runs on", "why, and how to mend it", "KiB", title_justify="left")
    table.title = escape(f"check-edgetpu {name}")
    for run in _runs(verdict.placements):
        table.add_row(*_row(run, cache))
    return table


def _row(run: list[Placement], cache: Cache) -> tuple[str, str, str, str, str]:
    first, last = run[0].operation.number, run[-1].operation.number
    names = Counter(placement.operation.name for placement in run)
    size = sum(cache.operations.get(placement.operation.number, 0) for placement in run)
    return (
        f"{first}" if first == last else f"{first}-{last}",
        escape(", ".join(name if count == 1 else f"{name} x{count}" for name, count in names.items())),
        "Edge TPU" if run[0].on_edgetpu else "CPU",
        escape(_why(run[0])),
        f"{size / KIB:.0f}" if size else "",
    )


def _runs(placements: tuple[Placement, ...]) -> list[list[Placement]]:
    """Gather neighbours with one fate, so that a long network is a short table."""
    runs: list[list[Placement]] = []
    for placement in placements:
        if runs and _fate(runs[-1][0]) == _fate(placement):
            runs[-1].append(placement)
        else:
            runs.append([placement])
    return runs


def _fate(placement: Placement) -> tuple[str, str]:
    """What neighbours must share: what a cut or the whole file keeps out is alike, else the name counts."""
    if placement.refusal:
        is_float = placement.refusal.constraint == "data type"
        return "" if is_float else placement.operation.name, placement.refusal.constraint
    return placement.operation.name if placement.on_edgetpu else "", _why(placement)


def _why(placement: Placement) -> str:
    if placement.refusal:
        return _refused(placement.refusal)
    if placement.behind is not None:
        return f"comes after op {placement.behind}, which is not in the Edge TPU's part"
    if not placement.on_edgetpu:
        return "would map if the file were taken"
    return f"unsure: {placement.doubt}" if placement.doubt else ""


def _refused(refusal: Refusal) -> str:
    return f"{refusal.constraint}: {refusal.reason}. {refusal.remedy[:1].upper()}{refusal.remedy[1:]}."


def _verdict_words(verdict: Verdict) -> list[str]:
    total = len(verdict.placements)
    if verdict.maps_fully:
        return [f"Maps fully: all {total} operations run on the Edge TPU."]
    lines = [f"The compiler refuses the whole file. {_refused(fault)}" for fault in verdict.faults]
    stop = verdict.stop
    if not lines and stop and stop.refusal:
        place_name = f"op {stop.operation.number}, {stop.operation.name}"
        lines = [f"The compiler stops at {place_name}. {_refused(stop.refusal)}"]
    return [f"Does not map fully: {verdict.mapped} of {total} operations run on the Edge TPU.", *lines]


def _doubt_words(verdict: Verdict) -> list[str]:
    unsure = sum(bool(each.on_edgetpu and each.doubt) for each in verdict.placements)
    if not unsure:
        return []
    return [f"Of {unsure} operations it is not sure; `--compile` asks the compiler itself."]


def _cache_words(cache: Cache) -> list[str]:
    if not cache.total_bytes:
        return []
    size, room = _size(cache.total_bytes), _size(CHIP_BYTES)
    if cache.answer == "yes":
        return [f"Parameters: about {size}; they stay on the chip ({room}, less its program)."]
    rest = f"{_size(cache.streamed_at_least)} to {_size(cache.streamed_at_most)}"
    word = "do not all fit" if cache.answer == "no" else "may not all fit"
    return [f"Parameters: about {size}; they {word} on the chip ({room}, less its program).",
            f"What does not fit is sent at each inference: {rest}. A smaller width avoids it."]  # fmt: skip


def _report_words(verdict: Verdict, report: Report) -> list[str]:
    agrees = "as foreseen" if report.rows == verdict.rows else "not as foreseen"
    lines = [
        f"edgetpu_compiler {report.version}: {report.subgraphs} subgraphs, on chip "
        f"{_size(report.on_chip_bytes)} ({_size(report.on_chip_left_bytes)} left), streamed "
        f"{_size(report.off_chip_bytes)}; operations {agrees}."
    ]
    return lines + [f"  {name} x{count}: {status}" for (name, status), count in sorted(report.rows.items())]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / KIB**2:.2f} MiB" if size_bytes >= KIB**2 else f"{size_bytes / KIB:.1f} KiB"


def _result(name: str, verdict: Verdict, cache: Cache, said: Report | str | None) -> dict[str, Any]:
    stop = verdict.stop
    return {
        "file": name,
        "compiled": False,
        "maps_fully": verdict.maps_fully,
        "mapped": verdict.mapped,
        "operations": [_operation(each, cache) for each in verdict.placements],
        "faults": [fault._asdict() for fault in verdict.faults],
        "stops_at": stop.operation.number if stop else None,
        "parameters": {
            "bytes": cache.total_bytes, "stay_on_chip": cache.answer,
            "streamed_at_least": cache.streamed_at_least, "streamed_at_most": cache.streamed_at_most,
        },
        "compiler": _report(verdict, said),
    }  # fmt: skip


def _operation(placement: Placement, cache: Cache) -> dict[str, Any]:
    operation = placement.operation
    return {
        "number": operation.number,
        "name": operation.name,
        "version": operation.version,
        "on_edgetpu": placement.on_edgetpu,
        "status": placement.status,
        "refusal": placement.refusal._asdict() if placement.refusal else None,
        "behind": placement.behind,
        "doubt": placement.doubt,
        "parameter_bytes": cache.operations.get(operation.number, 0),
    }


def _report(verdict: Verdict, report: Report | str | None) -> dict[str, Any] | None:
    if report is None or isinstance(report, str):
        return None if report is None else {"error": report}
    rows = [{"name": n, "status": s, "count": c} for (n, s), c in sorted(report.rows.items())]
    return {**report._asdict(), "rows": rows, "as_foreseen": report.rows == verdict.rows}
