"""Gathers what a course tells into the record of a run; its state travels with the checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.evaluation.metrics import backward_transfer, forgetting, forward_transfer
from host_trainer.sparcl import record
from host_trainer.sparcl.accounting import Flops, dense_like, flops
from host_trainer.sparcl.course import Answers, Epoch
from host_trainer.sparcl.record import Bin, Metrics, Record, Totals

Numbers = list[float | None]


class Recorder:
    """The record of one run, as it grows.

    Args:
        described: the record without what is only known at the end.
        macs: multiply-adds of one forward pass of the whole network, by kernel path.
        sizes: how many weights the kernels under masks have, by path.
        draws: of the dense method that operations are held against.
    """

    def __init__(
        self, described: Record, macs: Mapping[str, int], sizes: Mapping[str, int], draws: int
    ) -> None:
        self._described, self._macs, self._sizes, self._draws = described, macs, sizes, draws
        self._epochs: list[record.Epoch] = []
        self._dense = Flops(0.0, 0.0)
        self._rows: list[dict[str, Any]] = []
        self._layers: dict[str, float] = {}
        self._before: Numbers = []

    def before(self, answers: Answers) -> None:
        """Take in what the untrained network answers: the baseline of forward transfer."""
        self._before = _numbers(answers.task_il)

    def ended_epoch(self, epoch: Epoch) -> None:
        """Take in an epoch."""
        work, sums = epoch.work, epoch.sums
        counted = flops([work], self._macs)
        dense = flops([dense_like(work, epoch.offered, self._draws)], self._macs)
        self._dense = Flops(*(was + more for was, more in zip(self._dense, dense, strict=True)))
        self._layers = dict(work.live)
        self._epochs.append(
            record.Epoch(
                task=epoch.task,
                epoch=epoch.epoch,
                steps=sums.steps,
                offered=epoch.offered,
                kept=epoch.kept,
                weight_sparsity=self._sparsity(work.live),
                gradient_sparsity=self._sparsity({**work.live, **(work.moving or {})}),
                loss=sums.loss / max(1, sums.steps),
                accuracy=sums.right / max(1, sums.seen),
                samples=sums.seen,
                replayed=sums.replayed,
                forward_only=sums.taught,
                assessed=sums.assessed,
                flops_published=counted.published,
                flops_honest=counted.honest,
                seconds={"train": sums.training_s, "importance": sums.importance_s},
                images_per_s=sums.seen / max(sums.training_s, 1e-9),
            )
        )

    def ended_task(self, answers: Answers) -> None:
        """Take in what the network answers after a task."""
        row = {"class_il": _numbers(answers.class_il), "task_il": _numbers(answers.task_il)}
        parts = zip(*answers.sure, strict=True) if answers.sure else ()
        bins = [[float(number) for number in part] for part in parts]
        error = None if np.isnan(answers.calibration) else answers.calibration
        self._rows.append({**row, "calibration": error, "bins": bins, "seconds": answers.seconds})

    def finished(self, peak_bytes: int, buffer_bytes: int) -> Record:
        """Return the whole record."""
        count = len(self._described.tasks)
        blank: list[Numbers] = [[None] * count] * (count - len(self._rows))  # one lesson held all tasks
        class_il, task_il = ([*blank, *(row[name] for row in self._rows)] for name in ("class_il", "task_il"))
        last = self._rows[-1]
        return replace(
            self._described,
            class_il=tuple(map(tuple, class_il)),
            task_il=tuple(map(tuple, task_il)),
            metrics=self._metrics(_matrix(class_il), _matrix(task_il), last["calibration"]),
            totals=self._totals(peak_bytes, buffer_bytes),
            epochs=tuple(self._epochs),
            layers=self._layers or None,
            reliability=tuple(Bin(sure, right, int(count)) for sure, right, count in last["bins"]),
        )

    def state(self) -> NDArray[np.uint8]:
        """Return what has been gathered, as bytes for a checkpoint."""
        epochs = [asdict(epoch) for epoch in self._epochs]
        return packed([epochs, self._dense, self._rows, self._layers, self._before])

    def restore(self, state: NDArray[np.uint8]) -> None:
        """Take up what `state` gave."""
        epochs, dense, self._rows, self._layers, self._before = unpacked(state)
        self._epochs, self._dense = [record.Epoch(**epoch) for epoch in epochs], Flops(*dense)

    def _sparsity(self, live: Mapping[str, float]) -> float:
        """Return which share of the weights under masks is zero, or does not move, over all of them."""
        if not live:
            return 0.0
        lives = sum(live.get(path, 1.0) * size for path, size in self._sizes.items())
        return 1 - lives / sum(self._sizes.values())

    def _totals(self, peak_bytes: int, buffer_bytes: int) -> Totals:
        phases = {
            name: sum(epoch.seconds[name] for epoch in self._epochs) for name in ("train", "importance")
        }
        samples = sum(epoch.samples for epoch in self._epochs)
        return Totals(
            seconds={**phases, "evaluation": sum(row["seconds"] for row in self._rows)},
            flops_published=sum(epoch.flops_published for epoch in self._epochs),
            flops_honest=sum(epoch.flops_honest for epoch in self._epochs),
            dense_flops_published=self._dense.published,
            dense_flops_honest=self._dense.honest,
            peak_bytes=peak_bytes,
            buffer_bytes=buffer_bytes,
            images_per_s=samples / max(phases["train"], 1e-9),
        )

    def _metrics(
        self, class_il: NDArray[np.float64], task_il: NDArray[np.float64], error: float | None
    ) -> Metrics:
        by_task = len(self._rows) == len(class_il)  # not so when everything was one lesson
        before = np.array([np.nan if value is None else value for value in self._before], np.float64)
        return Metrics(
            class_il=_mean(class_il[-1]),
            task_il=_mean(task_il[-1]),
            forgetting=forgetting(class_il) if by_task else None,
            bwt=backward_transfer(class_il) if by_task else None,
            fwt=forward_transfer(task_il, before) if by_task and len(before) else None,
            calibration_error=error,
        )


def packed(value: Any) -> NDArray[np.uint8]:
    """Return a plain JSON value as bytes, for a checkpoint, which keeps arrays only."""
    return np.frombuffer(json.dumps(value).encode("utf-8"), np.uint8)


def unpacked(state: NDArray[np.uint8]) -> Any:
    """Return the value that `packed` was given; tuples come back as lists."""
    return json.loads(state.tobytes().decode("utf-8"))


def _matrix(rows: Sequence[Numbers]) -> NDArray[np.float64]:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], np.float64)


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _numbers(values: NDArray[np.float64]) -> Numbers:
    return [None if np.isnan(value) else float(value) for value in values]
