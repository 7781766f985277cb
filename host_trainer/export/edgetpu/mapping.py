"""Decides which operations of a graph the Edge TPU compiler maps: one part, cut once.

The compiler makes a single part for the Edge TPU. An operation is in it when the Edge TPU can run it and
none of its inputs comes, by any way, from an operation that left the part before; what follows such an
operation stays on the CPU although it could be mapped ("More than one subgraph is not supported").
Operations before the part may be on the CPU. Branches that do not pass the cut stay in the part: that is how
the compiled MoveNet and DeepLab of Google look.
"""

from collections import Counter
from typing import NamedTuple

from host_trainer.export.edgetpu.constraints import QUANTISE, Refusal, doubt, refusal
from host_trainer.export.edgetpu.graph import ABSENT, Graph, Operation

MAPPED = "Mapped to Edge TPU"
ONE_PART = "More than one subgraph is not supported"
FILE_REFUSED = "Could be mapped, but the file is refused"


class Placement(NamedTuple):
    """Where one operation runs.

    Attributes:
        operation: the operation.
        on_edgetpu: it is in the Edge TPU's part.
        refusal: why it is not; None when it is, or when only the cut keeps it out.
        behind: number of the operation whose leaving cut it off; None when it is not cut off.
        doubt: what makes "it maps" less than certain; empty when nothing does.
    """

    operation: Operation
    on_edgetpu: bool
    refusal: Refusal | None
    behind: int | None
    doubt: str

    @property
    def could_map(self) -> bool:
        """Nothing about the operation keeps it from the Edge TPU; the file as a whole still may."""
        return self.refusal is None and self.behind is None

    @property
    def status(self) -> str:
        """What the compiler's log says of it, or that the whole file is refused."""
        if self.refusal:
            return self.refusal.status
        if self.behind is not None:
            return ONE_PART
        return MAPPED if self.on_edgetpu else FILE_REFUSED


class Verdict(NamedTuple):
    """Where every operation runs, and what makes the compiler refuse the file as a whole.

    Attributes:
        placements: one for each operation, in order.
        faults: reasons to refuse the whole file; then nothing maps.
    """

    placements: tuple[Placement, ...]
    faults: tuple[Refusal, ...]

    @property
    def mapped(self) -> int:
        """How many operations run on the Edge TPU."""
        return sum(placement.on_edgetpu for placement in self.placements)

    @property
    def maps_fully(self) -> bool:
        """Every operation runs on the Edge TPU."""
        return not self.faults and self.mapped == len(self.placements)

    @property
    def stop(self) -> Placement | None:
        """Where the part ends: the first refused operation behind its begin, else the first refused one."""
        refused = [each for each in self.placements if each.refusal]
        begin = next((i for i, each in enumerate(self.placements) if each.refusal is None), 0)
        inner = [each for each in refused if each.operation.number >= begin]
        return next(iter(inner or refused), None)

    @property
    def rows(self) -> dict[tuple[str, str], int]:
        """How often each (operation, status) occurs: the table in the compiler's log."""
        return dict(Counter((each.operation.name, each.status) for each in self.placements))


def place(graph: Graph) -> Verdict:
    """Return where the compiler would put each operation of a graph that is not compiled yet."""
    faults = _faults(graph)
    inside: set[int] = set()  # tensors made by the Edge TPU's part
    cut: dict[int, int] = {}  # tensors made behind the part: which operation cut them off
    placements = []
    for operation in graph.operations:
        refused = refusal(graph, operation)
        behind = next((cut[i] for i in operation.inputs if i in cut), None)
        if refused is None and behind is None:
            inside.update(operation.outputs)
        elif behind is not None or inside.intersection(operation.inputs):
            cut.update(dict.fromkeys(operation.outputs, operation.number if behind is None else behind))
        placement = Placement(operation, False, refused, behind, "")
        if placement.could_map:
            placement = placement._replace(on_edgetpu=not faults, doubt=doubt(graph, operation))
        placements.append(placement)
    return Verdict(tuple(placements), faults)


def _faults(graph: Graph) -> tuple[Refusal, ...]:
    return tuple(fault for fault in (_open_sizes(graph), _float_model(graph), _control_flow(graph)) if fault)


def _open_sizes(graph: Graph) -> Refusal | None:
    """An open size anywhere makes the compiler give up: it sees "dynamic-sized tensors"."""
    fed = {i for operation in graph.operations for i in (*operation.inputs, *operation.outputs)} - {ABSENT}
    tensors = [graph.tensors[i] for i in sorted(fed) if -1 in graph.tensors[i].signature]
    if not tensors:
        return None
    reason = f"{len(tensors)} tensors have a size that is left open, such as the batch"
    remedy = "export with a fixed batch of 1 (`host-trainer export --target edgetpu` does)"
    return Refusal("fixed sizes", reason, remedy, "the graph has dynamic-sized tensors")


def _float_model(graph: Graph) -> Refusal | None:
    computed = [tensor for tensor in graph.tensors if not tensor.is_constant]
    if any(tensor.dtype in {"int8", "uint8"} and tensor.scales for tensor in computed):
        return None
    return Refusal("quantised", "nothing is computed in 8 bits", QUANTISE, "Model not quantized")


def _control_flow(graph: Graph) -> Refusal | None:
    if graph.subgraphs == 1:
        return None
    reason = f"the file has {graph.subgraphs} subgraphs (loops or branches)"
    return Refusal("one subgraph", reason, "export without loops and conditions", ONE_PART)
