"""Edge TPU: `check-edgetpu` held against what Google's compiler made of the same model.

Claims, over every pair FILE.tflite and FILE_edgetpu.tflite under EDGE_CL_DATA and the folders of --pairs:
- whether a model maps fully is foreseen right for every pair;
- where both files are of one graph, each operation is foreseen on the right side;
- the parameters on the chip are estimated within 5 % for networks above 0.5 MB that have no softmax (older
  compilers keep no table for it, and with it the estimate is up to 8 % above theirs).

Method: an operation is on the CPU when the compiled file still has an operation that writes the same tensors.
Two files are of one graph when every operation left in the compiled one is also in the other. What is on the
chip is read from the program inside the compiled file. Files that are equal count once.

The rules were written with sight of these pairs: that TILE maps, and the bounds for resizing, come from them.
The pairs beyond EDGE_CL_DATA are those of Google's public repositories google-coral/test_data, edgetpu,
project-posenet and project-bodypix (files under 4 MB, older versions too); they are not part of the project.
Many are one network at several picture sizes: MobileNet, PoseNet, BodyPix, DeepLab, MoveNet, an LSTM.

Expected time: 10 seconds.

    python benchmarks/edgetpu_pairs.py [--pairs FOLDER]... [--write]
"""

import argparse
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ledger
from ledger import Row, at_most

from edge_cl.vision.engines.edgetpu import CUSTOM_OP
from host_trainer.export.edgetpu.executable import read_compiled
from host_trainer.export.edgetpu.graph import Graph, load_graph
from host_trainer.export.edgetpu.mapping import place
from host_trainer.export.edgetpu.memory import estimate

SUFFIX = "_edgetpu.tflite"
ESTIMATED_FROM_BYTES = 500_000  # below it, tables of single operations outweigh the weights


class Found(NamedTuple):
    """What one pair showed.

    Attributes:
        name: of the compiled file.
        maps_fully: in truth.
        is_right: foreseen so.
        operations: compared one by one; 0 where the two files are not of one graph.
        wrong: operations foreseen on the wrong side.
        parameter_bytes: in the compiled program.
        error: of the estimate, relative.
        has_softmax: among the mapped operations.
    """

    name: str
    maps_fully: bool
    is_right: bool
    operations: int
    wrong: int
    parameter_bytes: int
    error: float
    has_softmax: bool


def pairs(folders: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield (source, compiled), each compiled file once."""
    seen = set()
    for folder in folders:
        for compiled in sorted(folder.rglob(f"*{SUFFIX}")):
            source = compiled.with_name(compiled.name.removesuffix(SUFFIX) + ".tflite")
            digest = hashlib.sha256(compiled.read_bytes()).digest()
            if source.is_file() and digest not in seen:
                seen.add(digest)
                yield source, compiled


def compare(source: Path, compiled: Path) -> Found:
    graph, made = load_graph(source), load_graph(compiled)
    verdict, truth = place(graph), read_compiled(made)
    foreseen = [each.on_edgetpu for each in verdict.placements]
    sides = _sides(graph, made)
    parameters = truth.cached_bytes + truth.streamed_bytes
    return Found(
        name=compiled.name,
        maps_fully=truth.left == 0,
        is_right=verdict.maps_fully == (truth.left == 0),
        operations=len(sides),
        wrong=sum(a != b for a, b in zip(sides, foreseen, strict=False)),
        parameter_bytes=parameters,
        error=estimate(graph, verdict).total_bytes / max(parameters, 1) - 1,
        has_softmax=any(p.on_edgetpu and p.operation.name == "SOFTMAX" for p in verdict.placements),
    )


def _sides(graph: Graph, made: Graph) -> list[bool]:
    """Tell for each operation whether it went to the Edge TPU; empty where the graphs are not one."""
    left = {t.name for o in made.operations if o.name.encode() != CUSTOM_OP for t in made.outputs_of(o)}
    written = [{t.name for t in graph.outputs_of(operation)} for operation in graph.operations]
    if not left <= set().union(*written):
        return []
    return [not names & left for names in written]


def rows(found: Sequence[Found]) -> list[Row]:
    full = [each for each in found if each.maps_fully]
    twins = [each for each in found if each.operations]
    right, agreed = sum(each.is_right for each in found), sum(not each.wrong for each in twins)
    large = [each for each in found if each.parameter_bytes >= ESTIMATED_FROM_BYTES]
    plain = [abs(each.error) for each in large if not each.has_softmax]
    tables = [abs(each.error) for each in large if each.has_softmax]
    kinds = f" ({len(full)} map fully, {len(found) - len(full)} do not)"
    each_one = f"... on each of {sum(each.operations for each in twins)} operations, pairs of one graph"
    error = f"parameters on the chip, largest error, {len(plain)} networks"
    return [
        Row(
            "check-edgetpu right on every pair", f"{right} of {len(found)}{kinds}", "all", right == len(found)
        ),
        Row(each_one, f"{agreed} of {len(twins)}", "all", agreed == len(twins)),
        at_most(error, max(plain, default=0), 0.05),
        Row(f"... with a softmax, {len(tables)} networks", f"{max(tables, default=0):.3f}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help="put the rows into RESULTS.md")
    asked = parser.parse_args()
    named = os.environ.get("EDGE_CL_DATA")
    data = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    found = [compare(source, compiled) for source, compiled in pairs([data / "models", *asked.pairs])]
    if not found:
        raise SystemExit(f"no pairs in {data}: set EDGE_CL_DATA, or name a folder with --pairs")
    for each in found:
        if not each.is_right or each.wrong:
            print(f"WRONG: {each.name}: {each.wrong} operations")
    result = rows(found)
    ledger.show("Edge TPU", result)
    if asked.write:
        options = " --pairs FOLDER" * len(asked.pairs)
        ledger.write(
            "edgetpu pairs", f"python benchmarks/edgetpu_pairs.py{options} --write", ledger.rows_table(result)
        )


if __name__ == "__main__":
    main()
