"""The routes of the server: takes requests apart, has them answered in a thread, puts answers together.

What is not about HTTP is answered by `rounds`, `enrolment` and `overview`; here are only the limits that
protect them: how long a body may be and take, and how many requests are worked on at once.
"""

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edge_cl import __version__
from edge_cl.errors import EdgeError, ProtocolError
from edge_cl.wire import canonical, codec, enrolment, routes, signing
from edge_cl.wire.fields import to_plain
from edge_cl.wire.messages import Message, Refusal
from host_trainer.release.folder import REPOSITORY
from host_trainer.server.devices import Asked
from host_trainer.server.enrolment import Enrolment
from host_trainer.server.fleet import Fleet
from host_trainer.server.limits import Limits
from host_trainer.server.refusal import RefusedError
from host_trainer.server.rounds import Rounds
from host_trainer.server.upkeep import Upkeep
from host_trainer.server.web import bodies, contract
from host_trainer.server.web.counting import Counted
from host_trainer.server.web.metrics import Metrics
from host_trainer.server.web.page import STYLE, Page
from host_trainer.server.web.process import is_loopback
from host_trainer.server.web.repository import file_response

SINCE = re.compile(rf"{routes.SINCE}=(?P<version>0|[1-9][0-9]{{0,15}})", re.ASCII)
SPEAKS_MESSAGES = (routes.ROUND, routes.REGISTRY)
METRICS, PROMETHEUS = "/metrics", "text/plain; version=0.0.4; charset=utf-8"
PAGE = re.compile(r"page=(?P<page>[1-9][0-9]{0,5})", re.ASCII)
PRIVATE = "this is shown on the host itself; `host-trainer serve --page everywhere` shows it to all"
NO_PROGRAMS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
}
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

logger = logging.getLogger(__name__)

T = TypeVar("T")
Clock = Callable[[], float]


class Desk:
    """What the routes share: who answers, the clock, and how much is worked on at once."""

    def __init__(self, fleet: Fleet, limits: Limits, clock: Clock, upkeep: Upkeep | None) -> None:
        self.fleet, self.limits, self._clock = fleet, limits, clock
        self.metrics, self.page = Metrics(fleet, upkeep, clock), Page(fleet, upkeep, clock)
        self.rounds, self.enrolment = Rounds(fleet, limits), Enrolment(fleet, limits)
        self._slots = anyio.Semaphore(limits.slots)
        self._threads = anyio.CapacityLimiter(limits.threads)

    def now(self) -> int:
        """Return the host's time in Unix seconds."""
        return int(self._clock())

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots while a request is read and answered.

        Raises:
            RefusedError: none became free in time.
        """
        try:
            with anyio.fail_after(self.limits.slot_s):
                await self._slots.acquire()
        except TimeoutError as error:
            words = "the host has no time: try again later"
            raise RefusedError("busy", words, wait=self.limits.busy_s) from error
        try:
            yield
        finally:
            self._slots.release()

    async def work(self, act: Callable[[], T]) -> T:
        """Run what waits for the disk in a thread."""
        return await anyio.to_thread.run_sync(act, limiter=self._threads)


def make_app(
    fleet: Fleet, limits: Limits, clock: Clock, upkeep: Upkeep | None = None, is_public: bool = False
) -> FastAPI:
    """Return the application of a fleet's server.

    Args:
        fleet: open, and staying so.
        limits: of what peers may do.
        clock: returns Unix seconds.
        upkeep: whose faults the page shows.
        is_public: show page and metrics to whoever can reach this host; else to this machine alone.
    """
    desk = Desk(fleet, limits, clock, upkeep)
    app = FastAPI(
        title="edge-cl host",
        version=__version__,
        description=contract.DESCRIPTION,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # a signed target is that target and no other
    )

    @app.post(routes.ENROLMENT, **contract.ENROLMENT)
    async def enrol(request: Request) -> Response:
        async with desk.slot():
            body = await bodies.read_text(request, limits.body_s)
            address = request.client.host if request.client else ""
            found = await desk.work(lambda: desk.enrolment.answer(body, address, desk.now()))
        return _text(200, enrolment.write(found), desk)

    @app.post(routes.ROUND, **contract.ROUND)
    async def round_(request: Request) -> Response:
        said = _said(request)
        async with desk.slot():
            body = await bodies.read_message(request, limits.body_s)
            asked = Asked(said, request.method, _target(request), signing.digest(body))
            return _message(await desk.work(lambda: desk.rounds.answer(asked, body, desk.now())), desk)

    @app.get(routes.REGISTRY, **contract.REGISTRY)
    async def registry(request: Request) -> Response:
        said = _said(request)
        bodies.no_body(request)
        since = SINCE.fullmatch(request.scope["query_string"].decode("latin-1"))
        if since is None:
            raise RefusedError("malformed", f"ask as in {routes.REGISTRY}?{routes.SINCE}=7")
        version = int(since["version"])
        asked = Asked(said, request.method, _target(request), signing.digest(b""))
        async with desk.slot():
            return _message(await desk.work(lambda: desk.rounds.registry(asked, version, desk.now())), desk)

    @app.get(f"{routes.REPOSITORY}/{{path:path}}", **contract.REPOSITORY)
    @app.head(f"{routes.REPOSITORY}/{{path:path}}", **contract.REPOSITORY)
    async def repository(request: Request, path: str) -> Response:
        return file_response(fleet.folder / REPOSITORY, path, request)

    @app.get(routes.HEALTH, **contract.HEALTH)
    async def health() -> Response:
        await desk.work(lambda: _check(fleet))
        return _text(200, canonical.write({"status": "ok", "version": __version__}), desk)

    @app.get(METRICS, **contract.METRICS)
    async def metrics(request: Request) -> Response:
        _need_neighbour(request, is_public)
        return Response(await desk.work(desk.metrics.text), headers=NO_STORE, media_type=PROMETHEUS)

    @app.get("/", **contract.PAGE)
    async def page(request: Request) -> Response:
        _need_neighbour(request, is_public)
        number = PAGE.fullmatch(request.scope["query_string"].decode("latin-1"))
        shown = int(number["page"]) if number else 1
        text = await desk.work(lambda: desk.page.text(shown))
        return Response(text, headers={**NO_STORE, **NO_PROGRAMS}, media_type="text/html")

    @app.get("/style.css", include_in_schema=False)
    async def style() -> Response:
        return Response(STYLE, headers={"cache-control": "max-age=300"}, media_type="text/css")

    _answer_errors(app, desk)
    app.add_middleware(Counted, metrics=desk.metrics)
    return app


def _need_neighbour(request: Request, is_public: bool) -> None:
    """Raise RefusedError for who is not on this machine, where the page is for those who are.

    Also for a page of elsewhere that had its name point here, so as to look at this one (DNS rebinding).
    """
    if is_public:
        return
    peer = request.client.host if request.client else ""
    named = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    if not (is_loopback(peer) and is_loopback(named)):
        raise RefusedError("malformed", PRIVATE, status=403)


def _check(fleet: Fleet) -> None:
    """Raise StoreError when the fleet could keep nothing now."""
    fleet.database.check()
    fleet.objects.check()


def _said(request: Request) -> signing.Signature:
    """Return what a request says of itself, before its body is read."""
    found = request.headers.getlist("authorization")
    if len(found) != 1:
        raise _unsigned("the request is not signed, or twice")
    try:
        return signing.read_header(found[0])
    except ProtocolError as error:
        raise _unsigned(str(error)) from error


def _unsigned(words: str) -> RefusedError:
    return RefusedError("unknown-device", words, headers={"www-authenticate": signing.SCHEME, **bodies.CLOSE})


def _target(request: Request) -> str:
    """Return path and query as they were sent, and so signed."""
    path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _message(answer: Message, desk: Desk) -> Response:
    status = routes.STATUS[answer.reason] if isinstance(answer, Refusal) else 200
    headers = {routes.TIME: str(desk.now()), **NO_STORE}
    return Response(codec.encode(answer), status, headers, routes.MESSAGE)


def _text(status: int, body: bytes, desk: Desk) -> Response:
    return Response(body, status, {routes.TIME: str(desk.now()), **NO_STORE}, routes.JSON)


def _refused(request: Request, refused: RefusedError, desk: Desk) -> Response:
    """Return the answer of a refusal, in the form that the route speaks."""
    message = refused.message
    headers = {routes.TIME: str(desk.now()), **NO_STORE, **refused.headers}
    if message.wait:
        headers["retry-after"] = str(message.wait)
    if request.url.path in SPEAKS_MESSAGES:
        return Response(codec.encode(message), refused.status, headers, routes.MESSAGE)
    return Response(canonical.write(to_plain(message)), refused.status, headers, routes.JSON)


def _answer_errors(app: FastAPI, desk: Desk) -> None:
    """Let every error be answered in the protocol's form."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        logger.debug("refused %s: %s", request.url.path, error)
        desk.metrics.refused(error.message.reason)
        return _refused(request, error, desk)

    @app.exception_handler(EdgeError)
    async def failed(request: Request, error: EdgeError) -> Response:
        logger.error("%s %s: %s", request.method, request.url.path, error)
        words = "the host cannot keep anything now: try again later"
        return _refused(request, RefusedError("busy", words, wait=desk.limits.busy_s), desk)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        words = f"{request.method} is not done here: {error.detail}"
        return _refused(
            request, RefusedError("malformed", words, headers=error.headers, status=error.status_code), desk
        )

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return _refused(request, RefusedError("malformed", "the request was cut off"), desk)
