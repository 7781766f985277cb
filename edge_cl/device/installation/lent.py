"""Reads the exemplars of the release in use: samples of classes that nobody may have shown here.

Every command that opens a learner comes by here, so this knows no more of releases than it needs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_cl.device import install
from edge_cl.errors import ProtocolError, StoreDamagedError
from edge_cl.memory.buffer import exemplar_ids
from edge_cl.memory.disk import guarded
from edge_cl.wire.tensors import unpack

FILE = "exemplars.safetensors"  # as `wire.bundle` calls it


def exemplar_features(folder: Path, staged: str | None, views: int) -> dict[int, NDArray[Any]]:
    """Return {id: (V, D) features} of the exemplars of a staged release; nothing where there are none.

    Raises:
        StoreDamagedError: they do not read back.
    """
    path = install.bundle_folder(folder, staged or "") / FILE
    if not staged or not path.exists():
        return {}
    try:
        with guarded("reading the exemplars"):
            features = unpack(path.read_bytes())[0]["features"]
    except (ProtocolError, KeyError) as error:
        raise StoreDamagedError(
            f"the release in use is damaged ({error}): restore a backup with `edge-cl restore`"
        ) from error
    shown = features[:, np.arange(views) % features.shape[1]]
    return dict(zip(exemplar_ids(len(shown)).tolist(), shown, strict=True))
