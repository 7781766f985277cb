"""`host-trainer serve`: the host of a fleet, until Ctrl-C."""

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cl.errors import ConfigError
from host_trainer.commands.fleet_options import (
    Database,
    Endpoint,
    Folder,
    InsecureLoopback,
    Objects,
    address,
    seconds,
)
from host_trainer.commands.terminal import AsJson, print_json, say

if TYPE_CHECKING:
    from host_trainer.server.companion import Companion
    from host_trainer.server.limits import Limits

PORT = 8443
EVERYWHERE, LOOPBACK = "0.0.0.0", "127.0.0.1"
HERE, ALL = "here", "everywhere"

Host = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where to listen.",
        show_default="everywhere this machine is reached",
    ),
]
Port = Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0: any that is free.")]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="ADDRESS",
        help="A name of this machine to put into a new certificate, for browsers; may be repeated.",
        show_default=False,
    ),
]
PageFor = Annotated[
    str, typer.Option("--page", metavar="WHERE", help=f"Who sees page and metrics: {HERE}, or {ALL}.")
]
Interval = Annotated[
    str, typer.Option("--interval", metavar="TIME", help="Between two rounds of a device, such as 15m, 1h.")
]
Quota = Annotated[int, typer.Option("--quota", metavar="MB", min=1, help="Taken of a device in a day.")]
AfterContents = Annotated[
    int,
    typer.Option(
        "--retrain-after", metavar="N", min=0, help="Ask for training once N contents wait; 0: never."
    ),
]
AfterHours = Annotated[
    int,
    typer.Option(
        "--retrain-hours",
        metavar="N",
        min=0,
        help="Ask for training once a content has waited N hours; 0: never.",
    ),
]

WithWorker = Annotated[
    bool,
    typer.Option("--worker", help="Have a worker, too, that carries out the trainings that are asked for."),
]


def serve(
    folder: Folder,
    host: Host = "",
    port: Port = PORT,
    database: Database = "",
    objects: Objects = "",
    endpoint: Endpoint = "",
    name: Names = None,
    insecure_loopback: InsecureLoopback = False,
    page: PageFor = HERE,
    interval: Interval = "1h",
    quota: Quota = 256,
    retrain_after: AfterContents = 0,
    retrain_hours: AfterHours = 0,
    worker: WithWorker = False,
    as_json: AsJson = False,
) -> None:
    """Be the host of a fleet: let devices in, take what they learned, hand out releases, show the fleet.

    Over TLS, with a certificate of its own that is made on the first start and that every code names. The
    repository is renewed as long as its online keys are in `keys/online`.
    """
    from host_trainer.server.limits import Limits
    from host_trainer.server.rules.retraining import Policy

    if page not in (HERE, ALL):
        raise ConfigError(f"--page {page} is neither {HERE} nor {ALL}")
    host = host or (LOOPBACK if insecure_loopback else EVERYWHERE)
    limits = Limits(
        quota_bytes=quota * 1_000_000,
        wait_s=seconds(interval, "--interval"),
        policy=Policy(retrain_after, retrain_hours),
    )
    place = {"host": host, "port": port, "names": tuple(name or ()), "is_plain": insecure_loopback}
    where = {"--database": database, "--objects": objects, "--s3-endpoint": endpoint}
    companion = _worker_of(folder, where) if worker else None
    _serve(folder, address(*where.values()), limits, place, page == ALL, companion, as_json)


def _worker_of(folder: Path, where: dict[str, str]) -> "Companion":
    from host_trainer.retraining.worker import command
    from host_trainer.server.companion import Companion

    return Companion(command(str(folder), where, ["--worker"]))


def _serve(
    folder: Path,
    where: Any,
    limits: "Limits",
    place: dict[str, Any],
    is_public: bool,
    companion: "Companion | None",
    as_json: bool,
) -> None:
    from host_trainer.server.certificate import certificate_of
    from host_trainer.server.fleet import open_fleet
    from host_trainer.server.upkeep import Upkeep
    from host_trainer.server.web.app import make_app
    from host_trainer.server.web.process import is_loopback, listening, run, server_of

    if place["is_plain"] and not is_loopback(place["host"]):
        raise ConfigError(f"--insecure-loopback is for this machine alone: leave out --host {place['host']}")
    _log()
    signal.signal(signal.SIGTERM, _end)  # uvicorn ends the requests under way, then lets the signal do this
    with open_fleet(folder, where) as fleet:
        certificate = None if place["is_plain"] else certificate_of(folder, place["names"])
        found = listening(place["host"], place["port"])
        upkeep, stop = Upkeep(fleet, limits, time.time), threading.Event()
        server = server_of(make_app(fleet, limits, time.time, upkeep, is_public), limits, certificate)
        _tell(place, found.getsockname()[1], certificate.fingerprint if certificate else b"", as_json)
        keepers = [upkeep.run] if companion is None else [upkeep.run, companion.run]
        threads = [threading.Thread(target=keep, args=(stop,), daemon=True) for keep in keepers]
        for thread in threads:
            thread.start()
        try:
            run(server, [found])
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _end(number: int, frame: object) -> None:
    raise SystemExit(0)


def _tell(place: dict[str, Any], port: int, fingerprint: bytes, as_json: bool) -> None:
    """Say where the host is, before it answers."""
    scheme = "http" if place["is_plain"] else "https"
    shown = "localhost" if place["host"] in (EVERYWHERE, "::", LOOPBACK) else place["host"]
    url = f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}/"
    if as_json:
        print_json({"url": url, "host": place["host"], "port": port, "fingerprint": fingerprint.hex()})
        sys.stdout.flush()
    else:
        say(f"the fleet's page: {url}")
        if fingerprint:
            say(f"certificate (SHA-256): {fingerprint.hex()}")
        say("Ctrl-C ends it; devices go on by themselves and come back")


def _log() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("host_trainer.server").setLevel(logging.INFO)
