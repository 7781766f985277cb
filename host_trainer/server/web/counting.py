"""Counts each request on its way: by the pattern of its route, its status, its seconds and its bytes."""

from collections.abc import MutableMapping
from time import perf_counter
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from host_trainer.server.web.metrics import Metrics

OTHER = "other"  # whoever asks for what is not here makes no new line


class Counted:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when its answer is sent."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, up, down = perf_counter(), 500, 0, 0

        async def heard() -> MutableMapping[str, Any]:
            nonlocal up
            message = await receive()
            up += len(message.get("body", b""))
            return message

        async def said(message: MutableMapping[str, Any]) -> None:
            nonlocal status, down
            status = message.get("status", status)
            down += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, heard, said)
        finally:
            route = getattr(scope.get("route"), "path", OTHER)
            self._metrics.answered(route, status, perf_counter() - started, up, down)
