"""A private PostgreSQL on this machine: a cluster in a temporary folder, reached by a socket in it."""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
USER = "fleet"
NUMBERS = itertools.count(1)  # of databases
TIMEOUT_S = 60.0
# Nothing of it outlives the tests.
SETTINGS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=60")


def why_not() -> str:
    """Return why there is no PostgreSQL here, "" when there is."""
    if not PROGRAMS:
        return "PostgreSQL is not installed: /usr/lib/postgresql has no bin"
    return "" if _person() else "PostgreSQL does not run as root, and there is no user `nobody` to run it as"


def _person() -> str | int | None:
    """Return as whom to run it: PostgreSQL refuses to be root."""
    if os.geteuid():
        return os.geteuid()
    known = {each.pw_name for each in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


@contextlib.contextmanager
def cluster() -> Iterator[str]:
    """Start a cluster and yield the address of an empty database in it."""
    programs, person = PROGRAMS[-1], _person()
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is short, at most 107 bytes
    if isinstance(person, str):
        shutil.chown(folder, person)
    data, options = folder / "data", " ".join(f"-c {setting}" for setting in SETTINGS)

    def run(*words: object) -> None:
        subprocess.run(
            [str(word) for word in words],
            user=person if isinstance(person, str) else None,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )

    try:
        run(programs / "initdb", "-D", data, "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync")
        start = f"-k {folder} -c listen_addresses= {options}"
        run(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", start, "start")
        try:
            yield f"postgresql://{USER}@/postgres?host={folder}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh(address: str) -> str:
    """Make another empty database in a cluster, and return its address; it goes with the cluster."""
    name = f"fleet{next(NUMBERS)}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return address.replace("@/postgres?", f"@/{name}?")
