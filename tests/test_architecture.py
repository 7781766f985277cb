"""The shape of the program: who may import whom, and which modules may touch the world."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Outermost first. A module may import its own unit and any unit of a later row; rows are written so that
# two units of one row do not know each other. A unit is a module or a folder; the longest name wins.
LAYERS = (
    ("edge_cl.cli",),
    ("edge_cl.commands",),
    ("edge_cl.device", "edge_cl.web"),
    ("edge_cl.config",),  # writes the settings as carefully as the store writes its own files
    ("edge_cl.vision", "edge_cl.memory"),
    ("edge_cl.learning", "edge_cl.wire", "edge_cl.evaluation"),
    ("edge_cl.memory.buffer",),
    ("edge_cl.sample", "edge_cl.resident"),
    ("edge_cl.errors",),
    ("edge_cl",),  # its name and version
)
OPEN_TO_HOST = ("learning", "memory.buffer", "wire", "vision", "evaluation", "sample", "resident", "errors")

# Packages from outside the standard library, and who may import them at the top of a module.
PACKAGES = {
    "numpy": ("edge_cl", "host_trainer"),
    "PIL": ("edge_cl.vision", "edge_cl.commands", "edge_cl.device", "host_trainer"),
    "tomli": ("edge_cl.config", "host_trainer.sparcl.configs"),
    "tomllib": ("edge_cl.config", "host_trainer.sparcl.configs"),  # of the standard library from Python 3.11
    "tuf": (
        "edge_cl.device.releases",
        "edge_cl.device.transport",
        "host_trainer.release",
        "host_trainer.server",
    ),
    "urllib3": ("edge_cl.device.transport",),
    "securesystemslib": ("host_trainer.release",),
    "cryptography": ("host_trainer.release", "host_trainer.server.certificate"),
    "typer": ("host_trainer",),
    "rich": ("host_trainer",),
    "segno": ("host_trainer.commands",),
    **dict.fromkeys(("sqlalchemy", "alembic"), ("host_trainer.server",)),
    **dict.fromkeys(("fastapi", "starlette", "anyio", "uvicorn", "jinja2"), ("host_trainer.server.web",)),
    "prometheus_client": ("host_trainer.server.web",),
}
# Those that cost tens of megabytes or may be missing: only inside a function, and only here.
LAZY = {
    "ai_edge_litert": ("edge_cl.vision.engines", "edge_cl.vision.extractor", "host_trainer"),
    "flatbuffers": ("edge_cl.vision.extractor", "host_trainer"),
    "tflite_runtime": ("edge_cl.vision.engines",),
    "pycoral": ("edge_cl.vision.engines",),
    "tensorrt": ("edge_cl.vision.engines",),
    "tensorflow": ("edge_cl.vision.engines", "host_trainer"),
    "keras": ("host_trainer",),
    "onnx": ("host_trainer",),
    "onnxruntime": ("host_trainer",),
    "tf2onnx": ("host_trainer",),
    "jax": ("host_trainer",),
    "ray": ("host_trainer",),
    "boto3": ("host_trainer.server.objects.s3",),
    "botocore": ("host_trainer.server.objects.s3",),
}
NOWHERE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "random"}

SHELL = ("edge_cl.commands", "edge_cl.cli", "edge_cl.device")
ENGINES = "edge_cl.vision.engines"
HOST_DISK = (
    "host_trainer.datasets",
    "host_trainer.export",
    "host_trainer.release",
    "host_trainer.checkpoints",
    "host_trainer.artefacts",
    "host_trainer.distillation.targets",  # what teachers said, asked once
    "host_trainer.retraining.runs",  # what each stage of a run found
    "host_trainer.server.objects",
    "host_trainer.server.database",  # makes the file private before SQLite opens it
    "host_trainer.server.certificate",
    "host_trainer.distillation.codistillation",  # the store through which its peers exchange checkpoints
)
# What touches the world, and who may; reasons for what design.md does not list are in docs/adr/0005.
WORLD = {
    "clock": (
        "edge_cl.cli",
        "edge_cl.commands",
        "edge_cl.device.timings",
        "edge_cl.device.installation",  # dates that are handed in, and how long a release takes for a picture
        "edge_cl.device.releases",  # dates, as tuf's documents have them; `now` is handed in
        "edge_cl.device.sync.syncing",  # hands the host's time to the releases, as a date
        "host_trainer.cli",
        "host_trainer.commands",
        "host_trainer.export.cost",
        "host_trainer.release",  # dates again
        "host_trainer.retraining.job",  # and again, handed in
        "host_trainer.server.certificate",  # and again
        "host_trainer.server.database",  # how long to wait where SQLite does not
        "host_trainer.server.upkeep",  # and again; what time it is, is handed in
        "host_trainer.server.web.counting",  # how long a request took
    ),
    "disk": (
        "edge_cl.config",
        "edge_cl.memory",
        "edge_cl.device.install",
        "edge_cl.device.archive",
        "edge_cl.device.installation",  # where an installation stands, and the marks of its watchdog
        "edge_cl.device.releases",  # the documents and marks of releases, and files that are not bundles yet
        "edge_cl.device.sync.outbox",  # what was told, and the device's key
        f"{ENGINES}.tensorrt_worker",  # engines built on the board, in a folder handed in
        *HOST_DISK,
    ),
    "scratch": (
        f"{ENGINES}.isolated",
        "edge_cl.commands.flash",
        "host_trainer.backbones.tflite.parity",  # LiteRT reads a cut file from the disk
    ),  # temporary files, besides those who may write to the disk
    "reading": ("edge_cl.vision", "edge_cl.resident", "host_trainer", *SHELL),  # besides those who may write
    "network": (
        "edge_cl.device.transport",
        "edge_cl.web.server",
        "host_trainer.server",
        "host_trainer.training.crew",  # asyncio alone: members of a Ray actor wait for each other
    ),
    "socket": (
        f"{ENGINES}.isolated",  # a socket pair with the child
        "host_trainer.training.workers",  # asks which ports are free; TensorFlow opens them
    ),  # besides those with the network
    "process": (f"{ENGINES}.isolated", "edge_cl.commands", "edge_cl.device", "host_trainer"),
    "import by name": (ENGINES, "edge_cl.cli"),
}
WORLD["scratch"] += WORLD["disk"]
WORLD["reading"] += WORLD["disk"]
WORLD["socket"] += WORLD["network"]
# Inside those who may, this one may not: the buffer's rules are pure, the store around them is not.
PURE = (
    "edge_cl.memory.buffer",
    "edge_cl.memory.slots",
    "edge_cl.memory.events",
    "edge_cl.vision.preprocess",
    "host_trainer.server.rules",
)

MODULES = {
    **dict.fromkeys(("time", "datetime", "sched"), "clock"),
    **dict.fromkeys(("sqlite3", "shutil", "dbm", "zipfile", "tarfile"), "disk"),
    "tempfile": "scratch",
    **dict.fromkeys(("http", "urllib", "ssl", "ftplib", "smtplib", "asyncio", "xmlrpc"), "network"),
    **dict.fromkeys(("socket", "socketserver"), "socket"),
    **dict.fromkeys(("subprocess", "multiprocessing"), "process"),
}
CALLS = {
    **dict.fromkeys(("write_text", "write_bytes", "mkdir", "touch", "unlink", "rmdir", "rename"), "disk"),
    **dict.fromkeys(("symlink_to", "hardlink_to", "chmod", "savez", "savez_compressed", "tofile"), "disk"),
    **dict.fromkeys(("read_text", "read_bytes", "iterdir", "glob", "rglob", "fromfile", "memmap"), "reading"),
    **dict.fromkeys(("import_module", "__import__"), "import by name"),
}
OS_CALLS = {
    **dict.fromkeys(
        ("replace", "rename", "remove", "unlink", "mkdir", "makedirs", "rmdir", "truncate"), "disk"
    ),
    **dict.fromkeys(("link", "symlink", "fsync", "fdatasync"), "disk"),
    **dict.fromkeys(("listdir", "scandir", "walk"), "reading"),
    **dict.fromkeys(("system", "popen", "fork", "execv", "spawnv"), "process"),
}
SEEDED = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}  # of numpy.random


def unit_of(module: str) -> int | None:
    """Return the row of LAYERS a module of edge_cl belongs to, by the longest name that fits."""
    fitting = [(len(u), row) for row, units in enumerate(LAYERS) for u in units if _inside(module, u)]
    length, row = max(fitting, default=(0, 0))
    return row if length > len("edge_cl") or module.startswith("edge_cl.__") or module == "edge_cl" else None


def violations(module: str, source: str) -> list[str]:
    """Return what a module's source does that the tables do not allow; `module` is its dotted name."""
    tree = ast.parse(source)
    top = {id(node) for node in _at_top(tree)}
    found = []
    for node in ast.walk(tree):
        for target in _targets(node, module):
            found += [f"line {_line(node)}: {fault}" for fault in _imports(module, target, id(node) in top)]
        for fault in _uses(module, node):
            found.append(f"line {_line(node)}: {fault}")
    return found


def _imports(module: str, target: str, at_top: bool) -> Iterator[str]:
    package = target.split(".")[0]
    if package in {"edge_cl", "host_trainer"}:
        if not _may_import(module, target):
            yield f"{module} may not import {target}"
    elif package in NOWHERE:
        yield f"{package} is used nowhere in this project"
    elif package in MODULES:
        yield from _world(module, MODULES[package], package)
    elif package in LAZY:
        if not _any(module, LAZY[package]):
            yield f"{module} may not import {package}"
        elif at_top:
            yield f"{package} is imported inside the function that needs it, not at the top"
    elif package not in sys.stdlib_module_names and not _any(module, PACKAGES.get(package, ())):
        yield f"{module} may not import {package}"


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _may_import(module: str, target: str) -> bool:
    if target == "edge_cl.__version__":
        return True
    if module.startswith("host_trainer"):
        return target.startswith("host_trainer") or _any(target, tuple(f"edge_cl.{n}" for n in OPEN_TO_HOST))
    if target.startswith("host_trainer"):
        return False
    mine, theirs = unit_of(module), unit_of(target)
    if mine is None or theirs is None:
        return False  # a new folder takes its place in the table first
    return mine < theirs or (mine == theirs and _unit_name(module) == _unit_name(target))


def _unit_name(module: str) -> str:
    return max((u for units in LAYERS for u in units if _inside(module, u)), key=len)


def _uses(module: str, node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"np.random", "numpy.random"}:
        if node.attr not in SEEDED:
            yield f"np.random.{node.attr} is global state; use np.random.default_rng((seed, step))"
    if not isinstance(node, ast.Call):
        return
    name = ast.unparse(node.func)
    verb = name.rpartition(".")[2]
    if name in {"eval", "exec", "compile"}:
        yield f"{name}() is used nowhere in this project"
    if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
        yield "allow_pickle is used nowhere in this project"
    if name.startswith("os."):
        kind = _os_open(node) if verb == "open" else OS_CALLS.get(verb)
    elif verb == "open":
        kind = _open(node, name)
    elif verb == "replace" and len(node.args) == 1 and not node.keywords:
        kind = "disk"  # Path.replace; a text's replace has two arguments
    else:
        kind = CALLS.get(verb)
    if kind:
        yield from _world(module, kind, f"{name}()")


def _open(node: ast.Call, name: str) -> str | None:
    if name in {"Image.open", "PIL.Image.open"}:
        return None  # from bytes, or it takes a name that `reading` would have found
    if any(k.arg == "closefd" for k in node.keywords):
        return None  # a descriptor: where it was opened, or made of memory, it was looked at
    place = 1 if name in {"open", "io.open"} else 0
    mode = [k.value for k in node.keywords if k.arg == "mode"] or node.args[place : place + 1]
    if not mode:
        return "reading"
    text = mode[0].value if isinstance(mode[0], ast.Constant) else None
    if place == 0 and not (isinstance(text, str) and set(text) <= set("rwaxbt+")):
        return None  # the `open` of something else than a path, such as a device's
    return "reading" if isinstance(text, str) and not set(text) & set("wax+") else "disk"


def _os_open(node: ast.Call) -> str | None:
    if ast.unparse(node.args[0]) == "os.devnull":
        return None
    flags = " ".join(ast.unparse(each) for each in [*node.args[1:], *(k.value for k in node.keywords)])
    return "reading" if "O_RDONLY" in flags and "O_CREAT" not in flags else "disk"


def _world(module: str, kind: str, what: str) -> Iterator[str]:
    if not _any(module, WORLD[kind]) or _any(module, PURE):
        yield f"{module} may not use {what} ({kind})"


def _targets(node: ast.AST, module: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    start = node.module or ""
    if node.level:
        start = ".".join([*module.split(".")[: -node.level], *([start] if start else [])])
    return [f"{start}.{alias.name}" for alias in node.names]


def _at_top(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _at_top(node)


def _inside(module: str, unit: str) -> bool:
    return module == unit or module.startswith(f"{unit}.")


def _any(module: str, units: tuple[str, ...]) -> bool:
    return any(_inside(module, unit) for unit in units)


def _modules() -> list[tuple[str, Path]]:
    files = [
        path for package in ("edge_cl", "host_trainer") for path in sorted((ROOT / package).rglob("*.py"))
    ]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files
    ]
    return list(zip(names, files, strict=True))


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in _modules()])
def test_a_module_imports_inward_and_touches_only_its_part_of_the_world(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


def test_the_tables_speak_of_modules_that_exist_or_are_planned() -> None:
    names = {name for name, _ in _modules()}
    assert {"edge_cl.sample", "edge_cl.errors", "host_trainer.cli", "edge_cl.memory.store"} <= names
    assert set(PURE) <= names


BREACHES = {
    "inward, not outward": ("edge_cl.learning.base", "from edge_cl.memory.store import Store"),
    "not through the folder either": ("edge_cl.learning.base", "from edge_cl.memory import store"),
    "nor by a relative import": ("edge_cl.learning.base", "from ..memory import store"),
    "nor inside a function": ("edge_cl.vision.frames", "def f():\n    import edge_cl.device.agent"),
    "siblings do not know each other": ("edge_cl.wire.tensors", "from edge_cl.learning.base import Base"),
    "the buffer does not know its learner": ("edge_cl.memory.buffer", "from edge_cl.learning import base"),
    "the buffer is not the store": ("edge_cl.memory.buffer", "from edge_cl.memory.schema import TABLES"),
    "commands do not call the parser": ("edge_cl.commands.learn", "import edge_cl.cli"),
    "an unknown folder": ("edge_cl.device.agent", "from edge_cl.helpers import anything"),
    "edge imports host": ("edge_cl.device.agent", "import host_trainer"),
    "host reaches into the device": ("host_trainer.cli", "from edge_cl.device.agent import Agent"),
    "host reaches into the store": ("host_trainer.cli", "from edge_cl.memory import store"),
    "a package nobody declared": ("edge_cl.learning.base", "import scipy.linalg"),
    "pictures in the learner": ("edge_cl.learning.base", "from PIL import Image"),
    "an interpreter outside the engines": ("edge_cl.vision.backbone", "def f():\n    import ai_edge_litert"),
    "an interpreter at the top": (f"{ENGINES}.litert", "from ai_edge_litert.interpreter import Interpreter"),
    "an interpreter at the top, tried": (
        f"{ENGINES}.litert",
        "try:\n    import pycoral\nexcept OSError:\n    x = 1",
    ),
    "an import by name": ("edge_cl.vision.backbone", "importlib.import_module('tflite_runtime')"),
    "keras on the device": (f"{ENGINES}.litert", "def f():\n    import keras"),
    "the clock": ("edge_cl.learning.base", "from time import monotonic"),
    "the date": ("edge_cl.memory.store", "import datetime"),
    "writing": ("edge_cl.vision.frames", "path.open('wb')"),
    "writing, mode by name": ("edge_cl.device.agent", "open(path, mode='a')"),
    "writing, mode unknown": ("edge_cl.device.agent", "open(path, mode)"),
    "writing in one line": ("edge_cl.device.agent", "path.write_text('x')"),
    "renaming": ("edge_cl.device.agent", "part.replace(path)"),
    "renaming by os": ("edge_cl.device.agent", "os.replace(part, path)"),
    "opening to create": ("edge_cl.vision.files", "os.open(path, os.O_RDWR | os.O_CREAT)"),
    "a database": ("edge_cl.device.agent", "import sqlite3"),
    "arrays on disk": ("edge_cl.evaluation.metrics", "np.savez(path, x=x)"),
    "reading in the pure middle": ("edge_cl.learning.learner", "path.read_bytes()"),
    "reading in the pure buffer": ("edge_cl.memory.buffer", "open(path)"),
    "the network": ("edge_cl.device.agent", "import urllib.request"),
    "a socket": ("edge_cl.memory.store", "import socket"),
    "a process": ("edge_cl.learning.learner", "import subprocess"),
    "pickle": ("edge_cl.memory.store", "import pickle"),
    "pickle inside numpy": ("edge_cl.memory.store", "np.load(path, allow_pickle=True)"),
    "eval": ("edge_cl.commands.learn", "eval('1')"),
    "global random state": ("host_trainer.cli", "np.random.seed(0)"),
    "global random draws": ("edge_cl.learning.mixing", "x = np.random.rand(3)"),
    "the random module": ("edge_cl.learning.mixing", "from random import random"),
}
ALLOWED = {
    "inward": ("edge_cl.device.agent", "from edge_cl.memory.store import Store"),
    "the store knows its buffer": ("edge_cl.memory.store", "from edge_cl.memory.buffer import Buffer"),
    "the version": ("edge_cl.cli", "from edge_cl import __version__"),
    "seeded draws": ("edge_cl.learning.mixing", "x = np.random.default_rng((seed, step))"),
    "an interpreter inside": (f"{ENGINES}.litert", "def f():\n    import ai_edge_litert.interpreter"),
    "something else that opens": ("edge_cl.commands.learn", "Agent.open(folder)"),
    "memory behind a descriptor": ("edge_cl.device.agent", "open(memory, 'wb', closefd=False)"),
    "a text's replace": ("edge_cl.learning.base", "label.replace('a', 'b')"),
    "a named file read": ("edge_cl.vision.frames", "path.open('rb')"),
    "the clock outside": ("edge_cl.commands.learn", "import time"),
    "the same rules on the host": ("host_trainer.sparcl", "from edge_cl.learning import masking"),
}


@pytest.mark.parametrize(("module", "source"), BREACHES.values(), ids=BREACHES)
def test_a_breach_is_found(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(("module", "source"), ALLOWED.values(), ids=ALLOWED)
def test_what_the_tables_allow_is_not_called_a_breach(module: str, source: str) -> None:
    assert violations(module, source) == []
