"""What a host acknowledged survives the host: killed between any two messages, or one of several."""

import contextlib
import itertools
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators import postgres
from simulators.bucket import BUCKET
from simulators.caller import Caller, chunks, features, statistics
from simulators.foreman import ok, started
from simulators.hosting import hosting

from edge_cl.wire import codec, routes
from edge_cl.wire.codec import canonical, content_id
from edge_cl.wire.enrolment import read_code
from edge_cl.wire.messages import Message
from host_trainer.server.contents import Contents
from host_trainer.server.fleet import Address, open_fleet

NOW = 1_800_000_000


@contextlib.contextmanager
def doomed_host(folder: Path) -> Iterator[str]:
    """Run `host-trainer serve`, yield its address, and kill it as a power cut would."""
    process = started("serve", folder, "--insecure-loopback", "--port", 0, "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        yield json.loads(process.stdout.readline())["url"].rstrip("/")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
        process.stderr.close()


def script(device: Caller, sent: list[Message]) -> list[Message]:
    pieces = [piece for each in sent for piece in chunks(each, 400)]
    return [device.greet(1, *sent), *pieces, device.commit(1, *sent), device.status(1)]


@pytest.mark.slow
def test_a_host_killed_after_each_message_has_all_that_it_acknowledged(folder: Path) -> None:
    code = read_code(ok("enroll", "pi-1", folder, "--insecure-loopback", "--level", "images")["code"])
    sent: list[Message] = [statistics("pi-1"), features("pi-1")]
    device = Caller("", int(time.time()))
    with doomed_host(folder) as url:
        device.url = url
        assert device.enrol(code.token).status == 200
    for message in script(device, sent):
        with doomed_host(folder) as url:
            device.url = url
            device.said(message)
    with open_fleet(folder) as fleet:
        contents = Contents(fleet.database, fleet.objects)
        found = {each.id: contents.read(each) for each in contents.listed()}
    assert found == {content_id(each): canonical(each) for each in sent}


def test_several_hosts_share_a_database_and_a_bucket(
    folder: Path, postgresql: str, endpoint: str, tmp_path: Path
) -> None:
    """Each message goes to the other host, as behind a balancer; neither has anything of its own."""
    where = Address(postgres.fresh(postgresql), f"s3://{BUCKET}/{tmp_path.name}", endpoint)
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(hosting(folder, where, clock=lambda: NOW)) for _ in range(2)]
        device = Caller(hosts[0].url, NOW)
        assert device.enrol(hosts[1].token("pi-1")).status == 200
        sent: list[Message] = [statistics("pi-1"), features("pi-1")]
        turns = itertools.cycle(hosts)
        for message in script(device, sent):
            device.url = next(turns).url
            device.said(message)
        for host in hosts:
            found = {each.id: host.contents.read(each) for each in host.contents.listed()}
            assert found == {content_id(each): canonical(each) for each in sent}
        body = codec.encode(device.greet(2))
        headers = device.authorization("POST", routes.ROUND, body)
        statuses = []
        for host in hosts:  # what one has counted is counted for all
            device.url = host.url
            statuses.append(device.request("POST", routes.ROUND, body, headers).status)
        assert statuses == [200, 409]
    assert not (folder / "objects").exists()
    assert not (folder / "host.db").exists()
