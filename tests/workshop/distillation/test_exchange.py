"""What a peer publishes is seen whole or not at all, even when the peer dies while it writes."""

import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from edge_cl.errors import MismatchError, ProtocolError
from edge_cl.wire.tensors import pack
from host_trainer.artefacts import PART
from host_trainer.distillation.codistillation import exchange
from host_trainer.distillation.codistillation.exchange import FolderStore, Published

PUBLISHER = """
import sys
from pathlib import Path
import numpy as np
from host_trainer.distillation.codistillation.exchange import FolderStore, Published, packed
store, first = FolderStore(Path(sys.argv[1]), keep=2), int(sys.argv[2])
print("ready", flush=True)
for step in range(first, first + 100_000):
    store.publish(0, step, packed(Published(0, step, {"dense/kernel": np.full(200_000, step, np.float32)})))
"""


def checkpoint(peer: int, step: int, value: float = 0.0) -> bytes:
    return exchange.packed(Published(peer, step, {"dense/kernel": np.full((2, 3), value, np.float32)}))


def test_a_checkpoint_comes_back_as_it_was_and_the_oldest_go(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, keep=2)
    for step in (50, 100, 150):
        store.publish(1, step, checkpoint(1, step, step))
    assert store.steps(1) == [100, 150] and store.steps(0) == [] and store.read(1, 50) is None
    found = exchange.newest(store, 1, {})
    assert found is not None and (found.peer, found.step) == (1, 150)
    np.testing.assert_array_equal(found.weights["dense/kernel"], np.full((2, 3), 150, np.float32))
    assert exchange.newest(store, 1, {1: 150}) is None and exchange.newest(store, 0, {}) is None
    assert exchange.exactly(store, 1, 100) is not None and exchange.exactly(store, 1, 200) is None


def test_publishing_a_step_again_replaces_it(tmp_path: Path) -> None:
    """A peer that died after publishing comes back from its last save and publishes the same step again."""
    store = FolderStore(tmp_path)
    store.publish(0, 7, checkpoint(0, 7, 1.0))
    store.publish(0, 7, checkpoint(0, 7, 2.0))
    found = exchange.exactly(store, 0, 7)
    assert store.steps(0) == [7] and found is not None and found.weights["dense/kernel"][0, 0] == 2


@pytest.mark.slow
def test_a_reader_never_sees_half_a_checkpoint_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    store, first, pause, read = FolderStore(tmp_path, keep=2), 0, Event(), 0
    for number in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(tmp_path), str(first)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            for _ in range(12):
                pause.wait(0.003 + 0.001 * number)
                found = exchange.newest(store, 0, {})
                if found is not None:
                    assert set(found.weights["dense/kernel"]) == {np.float32(found.step)}
                    read += 1
            writer.send_signal(signal.SIGKILL)
        for step in store.steps(0):  # what is left by the dead is whole, too
            left = exchange.exactly(store, 0, step)
            assert left is not None and set(left.weights["dense/kernel"]) == {np.float32(step)}
        first = max(store.steps(0), default=first) + 1
    assert read > 20 and first > 6


def test_what_a_killed_writer_left_is_swept_at_the_next_publication(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.publish(0, 1, checkpoint(0, 1))
    (tmp_path / "peer-0" / f"{PART}step-000000002.safetensors").write_bytes(checkpoint(0, 2)[:40])
    assert store.steps(0) == [1]
    store.publish(0, 3, checkpoint(0, 3))
    assert sorted(path.name for path in (tmp_path / "peer-0").iterdir()) == [
        "step-000000001.safetensors",
        "step-000000003.safetensors",
    ]


def test_tensors_that_are_no_checkpoint_and_newer_versions_are_refused() -> None:
    weights = {"dense/kernel": np.zeros(3, np.float32)}
    with pytest.raises(ProtocolError):
        exchange.unpacked(pack(weights))
    with pytest.raises(ProtocolError):
        exchange.unpacked(checkpoint(0, 1)[:-1])
    with pytest.raises(MismatchError, match="one version"):
        exchange.unpacked(pack(weights, {"version": "2", "peer": "0", "step": "1"}))
