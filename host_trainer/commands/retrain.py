"""`host-trainer retrain`: a fleet's next release, from what its devices sent."""

import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_cl.errors import ConfigError
from host_trainer.chatter import quiet_tensorflow
from host_trainer.commands.fleet_options import (
    Database,
    Endpoint,
    Folder,
    Objects,
    address,
    model_among,
    model_of,
)
from host_trainer.commands.keys import KeyFolders, PassphraseFile, opened, today
from host_trainer.commands.terminal import AsJson, meter, print_json, say, stopping

if TYPE_CHECKING:
    from host_trainer.retraining.contents import Contents

LOOK_S = 0.2  # of a worker that waits, between two looks whether Ctrl-C was pressed

Model = Annotated[
    str, typer.Option("--model", metavar="NAME", help="The model to retrain.", show_default="the only one")
]
First = Annotated[bool, typer.Option("--first", help="Make the model's first release.")]
Backbone = Annotated[
    Path | None,
    typer.Option("--backbone", metavar="FILE", help="With --first: the .tflite file that devices run."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", help="With --first: pictures to begin with, train/CLASS/* or CLASS/*."
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        metavar="DIR",
        help="Pictures CLASS/* that no device supplied, to judge releases by.",
        show_default="those of the release before, or test/ of --data",
    ),
]
Network = Annotated[
    Path | None,
    typer.Option(
        "--network",
        metavar="DIR",
        help="With --first: what `train --method` made; devices run its file, and it is trained on later.",
    ),
]
HeadOnly = Annotated[bool, typer.Option("--head-only", help="Leave the backbone as it is.")]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        metavar="N",
        min=1,
        help="Of a network that is trained on.",
        show_default="as it was trained",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Where a network is trained on: processes of this machine, or ray: tasks on the cluster of"
        " RAY_ADDRESS, which sees the fleet's folder.",
    ),
]
Count = Annotated[
    int,
    typer.Option("--workers", metavar="N", min=1, max=64, help="Processes that share each batch."),
]
NoMirror = Annotated[
    bool, typer.Option("--no-mirror", help="With --first: a mirrored picture means something else.")
]
ContentsFolder = Annotated[
    Path | None,
    typer.Option(
        "--contents", metavar="DIR", help="Learn from contents in a folder, instead of those of the server."
    ),
]
Cap = Annotated[
    float,
    typer.Option(
        "--cap",
        metavar="SHARE",
        min=0.01,
        max=1.0,
        help="Largest share of one device where others speak too.",
    ),
]
AsWorker = Annotated[
    bool, typer.Option("--worker", help="Take retrainings from the server's queue, until Ctrl-C.")
]
Once = Annotated[bool, typer.Option("--once", help="With --worker: end when the queue is empty.")]
Queue = Annotated[bool, typer.Option("--queue", help="Ask the workers for it, and do not wait.")]


def retrain(
    fleet: Folder,
    model: Model = "",
    first: First = False,
    backbone: Backbone = None,
    network: Network = None,
    data: Data = None,
    held_out: HeldOut = None,
    no_mirror: NoMirror = False,
    head_only: HeadOnly = False,
    epochs: Epochs = None,
    engine: Engine = "processes",
    workers: Count = 1,
    contents: ContentsFolder = None,
    cap: Cap = 0.5,
    worker: AsWorker = False,
    once: Once = False,
    queue: Queue = False,
    database: Database = "",
    objects: Objects = "",
    endpoint: Endpoint = "",
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a release of what devices sent, prove it, and list it in canary - or say why not.

    Each stage leaves its result in FLEET/runs; killed, the same command goes on. Exit status 1: the gate
    rejected it.
    """
    quiet_tensorflow()
    _check(first, {"--backbone": backbone, "--network": network, "--data": data}, once and not worker, engine)
    where = {"--database": database, "--objects": objects, "--s3-endpoint": endpoint}
    if queue:
        _ask(fleet, model, address(*where.values()), as_json)
        return
    if worker:
        given: dict[str, object] = {"--held-out": held_out, "--epochs": epochs, "--cap": cap}
        given |= {"--engine": engine, "--workers": workers, "--passphrase-file": passphrase_file}
        words = [str(word) for option, value in given.items() if value for word in (option, value)]
        words += [str(word) for folder in keys or () for word in ("--keys", folder)]
        _be_worker(fleet, where, [*words, *(["--head-only"] if head_only else [])], once, as_json)
        return
    from host_trainer.retraining.job import Options, World
    from host_trainer.retraining.session import retrain as run

    place, ring = opened(fleet, keys, passphrase_file)
    options = Options(
        fleet=fleet,
        model=model_among(place, model),
        first=first,
        backbone=backbone,
        network=network,
        data=data,
        held_out=held_out,
        mirror=not no_mirror,
        head_only=head_only,
        epochs=epochs,
        engine=engine,
        workers=workers,
        cap=cap,
    )
    with stopping() as stopped, _heard(options, contents, where) as heard:
        result = run(options, World(today(), place, ring, heard, meter, say, stopped, time.monotonic))
    if as_json:
        print_json(result)
    else:
        _show(result)
    raise typer.Exit(0 if result["accepted"] or result["idle"] else 1)


def _check(first: bool, of_first: dict[str, Path | None], once_alone: bool, engine: str) -> None:
    from host_trainer.sparcl.sweep import check_engine

    for name, value in of_first.items():
        if value is not None and not first:
            raise ConfigError(f"{name} belongs to a first release: give --first too")
    check_engine(engine)
    if once_alone:
        raise ConfigError("--once belongs to a worker: give --worker too")


@contextmanager
def _heard(options: Any, folder: Path | None, where: dict[str, str]) -> "Iterator[Contents]":
    """Yield what devices sent: in a folder that was named, else in the database of the fleet."""
    from host_trainer.retraining.contents import FolderContents

    if folder is not None:
        yield FolderContents(folder)
        return
    from host_trainer.retraining.fleet_contents import FleetContents
    from host_trainer.server.fleet import open_fleet

    with open_fleet(options.fleet, address(*where.values())) as opened_fleet:
        yield FleetContents(opened_fleet, options.model)


def _ask(fleet: Path, model: str, where: Any, as_json: bool) -> None:
    """Put a retraining into the queue, unless one waits there already."""
    from host_trainer.server.fleet import open_fleet
    from host_trainer.server.jobs import RETRAIN, Jobs

    with open_fleet(fleet, where) as opened_fleet:
        subject = model_of(opened_fleet, model)
        job = Jobs(opened_fleet.database).put(RETRAIN, subject, {"why": "asked for"}, int(time.time()))
    if as_json:
        print_json({"job": job, "model": subject})
    else:
        typer.echo(f"job {job} is queued: `host-trainer retrain {fleet} --worker` takes it up")


def _be_worker(fleet: Path, where: dict[str, str], options: list[str], once: bool, as_json: bool) -> None:
    """Take retrainings from the queue, each in a process of its own."""
    from host_trainer.retraining.worker import Around, command_of, work
    from host_trainer.server.fleet import open_fleet
    from host_trainer.server.jobs import Jobs

    def pause(seconds: float) -> None:
        end = time.monotonic() + seconds
        while not stopped() and time.monotonic() < end:
            time.sleep(LOOK_S)

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt  # so that what a job runs in ends, too

    name = f"{platform.node()}-{os.getpid()}"
    signal.signal(signal.SIGTERM, end)
    with stopping() as stopped, open_fleet(fleet, address(*where.values())) as opened_fleet:
        around = Around(time.time, pause, say, stopped)
        jobs = Jobs(opened_fleet.database)
        done = work(jobs, name, command_of(str(fleet), where, options), around, once)
    if as_json:
        print_json({"worker": name, "done": done})
    else:
        typer.echo(f"{done} retrainings done")


def _show(result: dict[str, Any]) -> None:
    if result["idle"]:
        typer.echo(f"{result['reasons'][0]}: nothing to do")
        return
    for device, reason in result["suspects"].items():
        typer.echo(f"{device} is not believed: {reason}")
    if result["accepted"]:
        typer.echo(f"bundle {result['bundle']} of {result['model']} is listed in canary")
    for reason in result["reasons"]:
        typer.echo(f"rejected: {reason}")
    typer.echo(f"look at {result['report']}")
