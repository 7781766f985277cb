"""What the server says no with: a reason of the protocol, words for a person, and what to go on from."""

from collections.abc import Mapping

from edge_cl.wire import routes
from edge_cl.wire.messages import Refusal

MAX_WORDS = 200  # of ASCII, as `wire.fields.Words`


class RefusedError(Exception):
    """A request that is refused; nothing of it is stored.

    Args:
        reason: one of `wire.messages.REFUSALS`.
        words: what is wrong, and how to mend it.
        wait: seconds until another try makes sense.
        headers: what the device should know besides.
        status: of HTTP, where it is not the reason's usual one.
    """

    def __init__(
        self,
        reason: str,
        words: str,
        wait: int = 0,
        headers: Mapping[str, str] | None = None,
        status: int = 0,
    ) -> None:
        super().__init__(words)
        self.message = Refusal(reason, plain(words), wait)
        self.headers = dict(headers or {})
        self.status = status or routes.STATUS[reason]


def plain(words: str) -> str:
    """Return words as a message can carry them: one line of ASCII, not too long."""
    line = " ".join(words.split()).encode("ascii", "replace").decode("ascii")
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 3]}..."
