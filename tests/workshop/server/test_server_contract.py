"""Every route, asked what `/openapi.json` allows and what not: no 5xx, only agreed answers, nothing stored.

The cases are schemathesis's, over real connections; those of signed routes are signed by a device, or not.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests import Request
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance
from simulators.caller import Caller, chunks, statistics
from simulators.hosting import Hosted, hosting
from sqlalchemy import func, select

from edge_cl.wire import canonical, codec, enrolment, routes
from host_trainer.server.fleet import Fleet
from host_trainer.server.limits import Limits
from host_trainer.server.rules.admission import Patience
from host_trainer.server.tables import Base

NOW = 1_800_000_000
ROUTES = {
    "POST /v1/enrolment",
    "POST /v1/round",
    "GET /v1/registry",
    "GET /repository/{path}",
    "HEAD /repository/{path}",
    "GET /health",
    "GET /metrics",
    "GET /",
}
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance)
SIGNED = (routes.ROUND, routes.REGISTRY)
FEW, MANY = 8, 400
PATHS = ("metadata/timestamp.json", "metadata/1.root.json", "../keys", "metadata/%2e%2e/host.db")
OWN = {"rounds", "pieces", "contents", "statuses", "trials"}  # what a genuine device may bring about
UNLIMITED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def frames() -> st.SearchStrategy[bytes]:
    """Draw bodies of a round: real messages, real ones with a few bytes changed, and any bytes."""
    caller = Caller("", NOW, "pi-1", bytes(32))
    sent = statistics("pi-1")
    messages = [
        caller.greet(1, sent),
        caller.greet(0),
        *chunks(sent, 100)[:2],
        caller.commit(1, sent),
        caller.status(1),
        statistics("pi-1"),
    ]
    real = st.sampled_from([codec.encode(each) for each in messages])
    edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)

    def changed(data: bytes, places: list[tuple[int, int]]) -> bytes:
        found = bytearray(data)
        for at, value in places:
            found[at % len(found)] = value
        return bytes(found)

    return st.builds(changed, real, edits) | st.binary(max_size=300)


schemathesis.openapi.media_type(routes.MESSAGE, frames())


@pytest.fixture(scope="module")
def host(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("contract") / "FLEET"))
    limits = Limits(patience=Patience(tries=10**6))
    with hosting(folder, limits=limits, clock=lambda: NOW) as hosted:
        yield hosted


@pytest.fixture(scope="module")
def device(host: Hosted) -> Caller:
    caller = Caller(host.url, NOW)
    assert caller.enrol(host.token("pi-1")).status == 200
    return caller


@pytest.fixture(scope="module")
def schema(host: Hosted) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{host.url}/openapi.json")


def stored(fleet: Fleet) -> dict[str, int]:
    """Count all rows but those that a genuine device may bring about."""
    with fleet.database.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
            if table.name not in OWN
        }


def signed(case: schemathesis.Case, device: Caller) -> dict[str, str]:
    """Return the header that signs a case as it will be sent."""
    sent = Request(**case.as_transport_kwargs(base_url=device.url)).prepare()
    body = sent.body or b""
    data = body if isinstance(body, bytes) else body.encode()
    return device.authorization(case.method.upper(), sent.path_url, data)


def test_the_contract_names_every_route(schema: schemathesis.BaseSchema) -> None:
    found = {f"{each.ok().method.upper()} {each.ok().path}" for each in schema.get_all_operations()}
    assert found == ROUTES


@pytest.mark.parametrize("route", sorted(ROUTES))
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_whatever_is_asked_is_answered_as_agreed(
    host: Hosted, device: Caller, schema: schemathesis.BaseSchema, route: str, examples: int
) -> None:
    method, _, path = route.partition(" ")
    operation, before, numbers = schema[path][method.lower()], stored(host.fleet), itertools.count()

    @settings(max_examples=examples, **UNLIMITED)
    @given(case=operation.as_strategy(), is_signed=st.booleans(), asked=st.sampled_from(PATHS))
    def is_answered(case: schemathesis.Case, is_signed: bool, asked: str) -> None:
        if "path" in case.path_parameters and next(numbers) % 2:
            case.path_parameters["path"] = asked
        if path in SIGNED and is_signed:
            case.headers = {**dict(case.headers or {}), **signed(case, device)}
        if path == routes.ENROLMENT and is_signed and isinstance(case.body, dict):
            case.body = canonical.write(case.body)  # in the one form that is read
        case.validate_response(case.call(), checks=CHECKS)

    is_answered()
    assert stored(host.fleet) == before


@pytest.mark.slow
def test_a_device_may_say_anything_and_a_good_round_goes_through_after_it(device: Caller) -> None:
    @settings(max_examples=MANY, **UNLIMITED)
    @given(st.lists(frames(), max_size=12))
    def survives(bodies: list[bytes]) -> None:
        assert all(device.send(body).status < 500 for body in bodies)

    survives()
    last, number = statistics("pi-1", 10**6), 2**53 - 1
    device.said(device.greet(number, last))
    device.upload(last)
    device.said(device.commit(number, last))
    device.said(device.status(number))


def test_a_question_that_the_contract_allows_is_read(schema: schemathesis.BaseSchema) -> None:
    operation = schema[routes.ENROLMENT]["post"]

    @settings(max_examples=FEW, **UNLIMITED)
    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    def is_read(case: schemathesis.Case) -> None:
        enrolment.read_enrol(canonical.write(case.body))

    is_read()
