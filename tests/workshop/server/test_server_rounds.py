"""Rounds over real connections: nothing is lost, nothing counts twice, what is wrong is refused by name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.caller import Caller, chunks, features, images, statistics
from simulators.hosting import Hosted, hosting

from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.messages import Acknowledgement, Offer, Receipt, Welcome
from host_trainer.server.fleet import Address

NOW = 1_800_000_000


@pytest.fixture
def host(folder: Path, database_address: str) -> Iterator[Hosted]:
    with hosting(folder, Address(database_address), clock=lambda: NOW) as hosted:
        yield hosted


@pytest.fixture
def device(host: Hosted) -> Caller:
    caller = Caller(host.url, NOW)
    assert caller.enrol(host.token("pi-1")).status == 200
    return caller


def test_a_round_brings_its_contents_whole(host: Hosted, device: Caller) -> None:
    sent = [statistics("pi-1"), features("pi-1"), images("pi-1")]
    welcome = device.said(device.greet(1, *sent))
    assert isinstance(welcome, Welcome)
    assert {each.id: each.received for each in welcome.missing} == dict.fromkeys(map(content_id, sent), 0)
    for each in sent:
        device.upload(each, size=50)
    offer = device.said(device.commit(1, *sent))
    assert offer == Offer(1, 0, None, 0, None)
    assert isinstance(device.said(device.status(1)), Acknowledgement)
    held = {each.id: each for each in host.contents.listed("waste")}
    assert held.keys() == set(map(content_id, sent))
    for each in sent:
        assert host.contents.read(held[content_id(each)]) == canonical(each)


def test_every_message_may_come_twice(host: Hosted, device: Caller) -> None:
    sent = statistics("pi-1")
    pieces = chunks(sent, 100)
    messages = [device.greet(1, sent), *pieces, device.commit(1, sent), device.status(1)]
    for message in messages:
        first, second = device.said(message), device.said(message)
        assert first == second or isinstance(first, Receipt)
    assert len(host.contents.listed()) == 1
    assert device.said(device.greet(2, sent)).missing == ()  # type: ignore[attr-defined]
