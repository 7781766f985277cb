"""TensorFlow, loaded without a word."""

import subprocess
import sys

import pytest

pytest.importorskip("tensorflow", reason="only TensorFlow talks while it loads")


def test_tensorflow_loads_without_a_word_and_may_speak_afterwards() -> None:
    words = (
        "import os;"
        "from edge_cl.vision.chatter import native_chatter_held;"
        "from host_trainer.chatter import quiet_tensorflow; quiet_tensorflow(); quiet_tensorflow()\n"
        "from importlib.util import find_spec; assert find_spec('tensorflow')\n"
        "with native_chatter_held(lambda line: False): import tensorflow\n"  # holding within a hold
        "assert int(tensorflow.constant(1) + 1) == 2\n"
        "quiet_tensorflow(); os.write(2, b'spoken')"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "spoken")
