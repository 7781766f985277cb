"""Do XNNPACK's sparse kernels run our block-sparse pointwise convolutions, and faster than dense ones?

Method: a MobileNetV1 of width 0.5 at 160 px, padded alike on all sides as XNNPACK's sparse path demands
(Keras' SAME is not, under a stride of two), with the weakest blocks of its pointwise weights at zero. The
same network is written dense in float, sparse in float (DENSIFY), and dense in int8. Latency is invoke + get
of LiteRT on one thread, the variants in turn, medians. Which kernels ran shows in the answer: the same ones
give the same bits, XNNPACK's sparse ones add in another order.

Expected: on x86 with AVX the sparse file is smaller and exactly as fast as the dense one, and int8 is
faster than both: XNNPACK keeps its sparse path for CPUs without AVX and for ARM, and for float networks.
On ARM the sparse file should be faster from about 70 % zeros on; not measured yet, see docs/hardware.md.
With --qemu a CPU without AVX, and one with it, are emulated: times mean little there, but the bits tell
whether the sparse kernels ran. Takes a minute, most of it conversion; the emulation five more.

    python benchmarks/block_sparse.py [--qemu qemu-x86_64-static] [--write]
    python benchmarks/block_sparse.py --make DIR     # the files only, on a machine with TensorFlow
    python benchmarks/block_sparse.py --run DIR      # their latencies only, on a board with LiteRT
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import ledger
import numpy as np

SIZE, WIDTH = 160, 0.5
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
DENSITIES = (0.3, 0.2, 0.1)
ROUNDS, WARM = 60, 5
EMULATED_ROUNDS = 2
EMULATED = {"without AVX": "Nehalem", "with AVX2": "max"}  # CPU models of QEMU 7.2 and later
INT8 = "int8, dense"


class Variant(NamedTuple):
    """A file, how long it took, and a hash of its answer."""

    name: str
    size_bytes: int
    latency_ms: float
    digest: str


def network() -> Any:
    """Return MobileNetV1 with explicit padding, as a Keras model."""
    import keras
    from keras import layers

    from host_trainer.backbones.networks import initialise

    def padded(maps: Any, stride: int) -> Any:
        return layers.ZeroPadding2D(1)(maps) if stride == 2 else maps

    def padding(stride: int) -> str:
        return "valid" if stride == 2 else "same"

    image = keras.Input((SIZE, SIZE, 3), name="image")
    maps = layers.ReLU(6.0)(layers.Conv2D(int(32 * WIDTH), 3, 2, "valid")(padded(image, 2)))
    for channels, stride in BLOCKS:
        maps = layers.DepthwiseConv2D(3, stride, padding(stride))(padded(maps, stride))
        maps = layers.Conv2D(int(channels * WIDTH), 1)(layers.ReLU(6.0)(maps))
        maps = layers.ReLU(6.0)(maps)
    model = keras.Model(image, layers.GlobalAveragePooling2D(name="feature")(maps))
    initialise(model, seed=0)
    return model


def make(folder: Path) -> None:
    """Write every variant's file into a folder."""
    from host_trainer.compression.blocksparse import compress, encode, obstacles
    from host_trainer.export.litert import Scheme, convert
    from host_trainer.network import Network

    pictures = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
    (folder / f"{INT8}.tflite").write_bytes(convert(network(), Scheme.PTQ, pictures))
    (folder / "float, dense.tflite").write_bytes(convert(network(), Scheme.FLOAT))
    for density in DENSITIES:
        data = convert(compress(Network(network()), density).model, Scheme.FLOAT)
        assert not obstacles(data), obstacles(data)
        (folder / f"float, {1 - density:.0%} zeros, stored dense.tflite").write_bytes(data)
        (folder / f"float, {1 - density:.0%} zeros, stored sparse.tflite").write_bytes(encode(data))


def run(folder: Path, rounds: int = ROUNDS, warm: int = WARM) -> list[Variant]:
    """Time every file of a folder, in turn."""
    paths = sorted(folder.glob("*.tflite"))
    interpreters = [_opened(path) for path in paths]
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(rounds + warm):
        for interpreter, taken in zip(interpreters, times, strict=True):
            taken.append(_timed(interpreter))
    return [
        Variant(path.stem, path.stat().st_size, 1e3 * float(np.median(taken[warm:])), _digest(interpreter))
        for path, interpreter, taken in zip(paths, interpreters, times, strict=True)
    ]


def emulated(qemu: str, folder: Path) -> list[ledger.Row]:
    """Run the sparsest pair on emulated CPUs: do the answers differ, as those of other kernels do?"""
    found = []
    with tempfile.TemporaryDirectory() as pair:
        for path in folder.glob(f"*{1 - DENSITIES[-1]:.0%} zeros*"):
            shutil.copy(path, pair)
        for words, cpu in EMULATED.items():
            command = [qemu, "-cpu", cpu, sys.executable, __file__, "--run", pair, "--json"]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            dense, sparse = (figures for _, figures in sorted(json.loads(told).items()))
            kernels = "the dense ones: equal bits" if dense[1] == sparse[1] else "the sparse ones: other bits"
            found.append(ledger.Row(f"emulated x86 {words}: kernels that ran the sparse file", kernels))
            found.append(ledger.Row("... emulated time, part of dense", f"{sparse[0] / dense[0]:.2f}"))
    return found


def _opened(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    noise = np.random.default_rng(1).uniform(-1, 1, detail["shape"])
    scale, zero = detail["quantization"]
    stored = noise if not scale else np.clip(np.round(noise / scale) + zero, -128, 127)
    interpreter.set_tensor(detail["index"], stored.astype(detail["dtype"]))
    return interpreter


def _timed(interpreter: Any) -> float:
    start = time.thread_time()  # of this thread: other work on the machine does not count
    interpreter.invoke()
    _answer(interpreter)
    return time.thread_time() - start


def _answer(interpreter: Any) -> np.ndarray:
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def _digest(interpreter: Any) -> str:
    return hashlib.sha256(_answer(interpreter).tobytes()).hexdigest()


def rows(variants: list[Variant]) -> list[ledger.Row]:
    by_name = {variant.name: variant for variant in variants}
    found = []
    for density in DENSITIES:
        dense, sparse = (
            by_name[f"float, {1 - density:.0%} zeros, stored {how}"] for how in ("dense", "sparse")
        )
        ratio = sparse.latency_ms / dense.latency_ms
        found.append(
            ledger.at_most(f"sparse file's latency, {1 - density:.0%} zeros, part of dense", ratio, 0.8)
        )
        same = sparse.digest == dense.digest
        found.append(ledger.Row("... its answer", "equal to the last bit" if same else "differs in rounding"))
        found.append(ledger.Row("... its size, part of dense", f"{sparse.size_bytes / dense.size_bytes:.2f}"))
    part = by_name[INT8].latency_ms / by_name["float, dense"].latency_ms
    found.append(ledger.Row("int8, dense: latency, part of float", f"{part:.2f}"))
    return found


def lines(variants: list[Variant]) -> list[str]:
    columns = ("file", "KB", "latency, ms")
    return ledger.table(
        columns, [(v.name, f"{v.size_bytes / 1e3:.0f}", f"{v.latency_ms:.2f}") for v in variants]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", type=Path, metavar="DIR")
    parser.add_argument("--run", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="with --run: latency and hash of the answer")
    parser.add_argument("--qemu", metavar="PROGRAM", help="user-mode emulator of x86-64")
    parser.add_argument("--write", action="store_true", help="put the figures into the ledger")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.make:
        make(args.make)
        return
    if args.json:
        told = {v.name: (v.latency_ms, v.digest) for v in run(args.run, EMULATED_ROUNDS, warm=1)}
        print(json.dumps(told))
        return
    with tempfile.TemporaryDirectory() as folder:
        if not args.run:
            make(Path(folder))
        variants = run(args.run or Path(folder))
        found = rows(variants) + (emulated(args.qemu, args.run or Path(folder)) if args.qemu else [])
    print("\n".join(lines(variants)))
    ledger.show("block-sparse pointwise convolutions", found)
    if args.write:
        text = [*lines(variants), "", *ledger.rows_table(found)]
        options = (" --run DIR" if args.run else "") + (" --qemu qemu-x86_64-static" if args.qemu else "")
        ledger.write("block sparse", f"python benchmarks/block_sparse.py{options} --write", text)


if __name__ == "__main__":
    main()
