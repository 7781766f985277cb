"""Keeps one worker running beside the server, in a process of its own, and starts it again when it ends."""

import logging
import subprocess
import threading
from collections.abc import Sequence

LOOK_S = 0.5  # between two looks whether it still runs
PAUSE_S = 30.0  # before it is started again: what ended it at once will most likely do so again
GRACE_S = 20.0  # in which it lets go of what it does

logger = logging.getLogger(__name__)


class Companion:
    """A process that is to run as long as the server does.

    Args:
        command: words of its command line.
        pause_s: seconds before it is started again.
    """

    def __init__(self, command: Sequence[str], pause_s: float = PAUSE_S) -> None:
        self._command, self._pause_s = list(command), pause_s

    def run(self, stop: threading.Event) -> None:
        """Keep it running until `stop` is set, then end it and wait for it."""
        while not stop.is_set():
            # A session of its own: Ctrl-C is for the server, which then ends this in good order.
            with subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True) as child:
                while child.poll() is None and not stop.wait(LOOK_S):
                    pass
                if stop.is_set():
                    _end(child)
                    return
            logger.warning("the worker has ended with status %s: it is started again", child.returncode)
            stop.wait(self._pause_s)


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()  # its lease runs out, and the run goes on at its last whole stage
