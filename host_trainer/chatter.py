"""Keeps what TensorFlow says when it starts off the terminal."""

import logging
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from edge_cl.vision.chatter import native_chatter_held

TENSORFLOW = "tensorflow"


def quiet_tensorflow() -> None:
    """Let TensorFlow load without a word, whenever it is loaded; once it has been, this is too late."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger(TENSORFLOW).setLevel(logging.ERROR)  # it warns of every small training that is traced
    if TENSORFLOW not in sys.modules and not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds TensorFlow as everybody does, and holds back what it says while it is executed.

    No level silences the lines it writes before its log is open: that oneDNN is on, and that they are early.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TENSORFLOW:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def quietly(module: ModuleType) -> None:
                with native_chatter_held(is_early):
                    load(module)

            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


def is_early(line: bytes) -> bool:
    """Tell whether a native line only says that oneDNN is on, or that the log is not open yet."""
    return b"oneDNN custom operations are on" in line or b"before absl::InitializeLog()" in line
