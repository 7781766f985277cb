"""The words beside the program: commands that exist, links that lead somewhere, no page left behind."""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import pytest

from edge_cl.cli import COMMANDS, build_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "models/*.md", "firmware_scripts/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FLEET = "## A fleet"  # the section for which a second machine is needed
PLACES = re.compile(r"(?<![\w.])/(?:work|tmp|root|home)/|localhost|file://")


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


commands = _loaded(ROOT / "docs" / "commands.py")


def lines_of_commands(text: str, program: str = "edge-cl") -> list[str]:
    """Return every line of a program in the fenced blocks of a page, continuations joined, no comments."""
    fenced = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, flags=re.M | re.S)
    lines = "\n".join(fenced).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if re.match(rf"\s*(\$ )?{program}\b", line)]


def commands_in_passing(text: str) -> list[str]:
    """Return the `edge-cl ...` spans outside fences that have options, table escapes undone."""
    return [span.replace("\\|", "|") for span in re.findall(r"(?<!`)`(edge-cl [^`\n]* -[^`\n]*)`", text)]


def headings(text: str) -> set[str]:
    """Return the anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in found}


def test_the_page_of_commands_is_what_the_parser_says() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert written == commands.page(build_parser()), "run: make docs"


def test_every_command_and_every_option_is_on_the_page_and_has_words() -> None:
    written = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    found = list(commands.commands(build_parser()))
    assert {command.parser.prog for command in found} >= {f"edge-cl {name}" for name in COMMANDS}
    for parser, words in found:
        section = written.partition(f"## `{parser.prog}`")[2].partition("\n## ")[0]
        assert words, f"{parser.prog} has no help"
        for action in parser._actions:
            if not commands.is_shown(action):
                continue
            assert action.help, f"{parser.prog} {action.dest} has no help"
            assert all(option in section for option in action.option_strings), f"{parser.prog}: {action.dest}"


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if not place.exists() or (anchor and anchor not in headings(place.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_commands_in_the_pages_are_understood_by_the_program(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in [*lines_of_commands(text), *commands_in_passing(text)]:
        words = shlex.split(line.removeprefix("$ "))[1:]
        try:
            build_parser().parse_args(words)
        except SystemExit as stop:
            assert stop.code in (0, None), line  # noqa: PT017 - `--version` and `--help` end with 0


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_no_page_speaks_of_somebodys_own_machine(page: Path) -> None:
    assert PLACES.findall(page.read_text(encoding="utf-8")) == []


def test_the_workshops_page_is_what_its_parser_says() -> None:
    written = (ROOT / "docs" / "workshop.md").read_text(encoding="utf-8")
    assert written == commands.workshop_page(), "run: make docs"


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_commands_of_the_workshop_in_the_pages_are_understood(page: Path) -> None:
    group = commands.workshop()
    for line in lines_of_commands(page.read_text(encoding="utf-8"), "host-trainer"):
        name, *words = shlex.split(line.removeprefix("$ "))[1:]
        group.commands[name].make_context(name, words)


def test_the_readme_shows_the_way_from_zero() -> None:
    shown = {line.split()[1] for line in lines_of_commands((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert {"init", "learn", "predict", "status", "doctor"} <= shown


@pytest.fixture
def newcomer(tmp_path: Path, data_dir: Path) -> Path:
    """Make a folder that holds what the README speaks of: five mugs, PHOTOS, something new."""
    taken: dict[str, int] = {}
    with tarfile.open(data_dir / "signdigits_100" / "signdigits_100.tar") as tar:
        for member in (each for each in tar if each.name.lower().endswith(".jpg")):
            label = Path(member.name).parent.name
            number = taken[label] = taken.get(label, 0) + 1
            mug = {1: "new.jpg"}.get(number, f"mug{number - 1}.jpg")
            name = mug if label == "0" else f"PHOTOS/{label}/{number}.jpg"
            picture = tar.extractfile(member)
            if number <= 6 and picture is not None:
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_bytes(picture.read())
    return tmp_path


@pytest.mark.slow
def test_the_five_minutes_of_the_readme_work_word_for_word(newcomer: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(newcomer / "state")}
    alone = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n{FLEET}\n")[0]
    for line in lines_of_commands(alone):
        words = shlex.split(line)[1:]
        if words[0] == "sync" or "--host" in words:
            continue  # needs a host: tests/commands/test_sync_command.py has one
        sure = ["--yes"] if words[0] == "forget" else []  # there is no terminal to ask
        done = subprocess.run(
            [sys.executable, "-m", "edge_cl.cli", *words, *sure],
            cwd=newcomer,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout, line
        # The doctor may find something to mend on the machine of whoever runs this.
        assert done.returncode in ((0, 1) if words[0] == "doctor" else (0,)), (line, done.stderr)


@pytest.mark.slow
def test_the_fleet_of_the_readme_works_word_for_word(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(f"\n{FLEET}\n")[2]
    section = section.partition("\n## ")[0]
    lines = {
        tuple(line.split()[:2]): line
        for line in (*lines_of_commands(section, "host-trainer"), *lines_of_commands(section))
    }
    assert len(lines) == 5
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HOST_TRAINER_URL": "https://127.0.0.1:8443",
    }

    def started(line: str) -> "subprocess.Popen[str]":
        program, *words = shlex.split(line)
        module = {"edge-cl": "edge_cl.cli", "host-trainer": "host_trainer.cli"}[program]
        return subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def done(line: str) -> str:
        process = started(line)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, (line, err)
        return out

    done(lines["host-trainer", "init"])
    host = started(lines["host-trainer", "serve"])
    assert host.stderr is not None
    if "cannot be listened on" in host.stderr.readline():
        host.communicate()
        pytest.skip("port 8443 of this machine is in use: the host of the README cannot be started")
    printed = done(lines["host-trainer", "enroll"]).strip()
    assert printed.startswith(lines["edge-cl", "init"].replace("HOST", "127.0.0.1").removesuffix("..."))
    done(printed)
    device = started(lines["edge-cl", "sync"])
    deadline = time.monotonic() + 60
    while not (said := json.loads(done("host-trainer fleet FLEET --json"))["devices"])[0]["seen_at"]:
        assert time.monotonic() < deadline
    assert [each["name"] for each in said] == ["pi-kitchen"]
    for process in (device, host):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_every_target_of_the_makefile_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(
        re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    )
    assert named >= {"run", "test", "check"}
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))


def test_every_decision_is_listed_and_says_what_is_bad_about_it() -> None:
    folder = ROOT / "docs" / "adr"
    listed = (folder / "README.md").read_text(encoding="utf-8")
    decisions = sorted(folder.glob("[0-9]*.md"))
    assert [path.name[:4] for path in decisions] == [f"{n:04}" for n in range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert path.name in listed
        assert "## Options" in text, path.name
        assert "**Bad:**" in text.partition("## Consequences")[2], path.name
