"""Bytes that nobody sent: every parser of a peer's bytes under a fuzzer that follows coverage (atheris).

The parsers, what each may raise, and the rules for what it reads are in `tests/checks/parsers.py`. Each runs
in a process of its own, in turn; its corpus is kept, and the next run goes on from it. A finding ends the run
with exit status 1 and the bytes in a file. Needs `pip install -e '.[fuzz]'`.

    python benchmarks/fuzz.py [--minutes 10] [--only message bundle] [--corpus DIR] [--write]
"""

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import ledger

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

COUNT = re.compile(r"#(\d+)\s+DONE")
MOST_BYTES = 8192
DEFAULT_CORPUS = Path.home() / ".cache" / "edge-cl" / "fuzz"


def fuzz(name: str, corpus: Path, seconds: int) -> None:
    """Run one parser until the time is up; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["edge_cl"]):
        from checks.parsers import CASES, run
    case = CASES[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(case.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", "-timeout=10", "-rss_limit_mb=2048"]
    prefix = f"-artifact_prefix={corpus.parent}/found-{corpus.name}-"
    atheris.Setup(
        [sys.argv[0], *limits, prefix, "-print_final_stats=1", str(corpus)], lambda data: run(case, data)
    )
    atheris.Fuzz()


def main() -> None:
    """Run what is asked, each in a process, and say how often."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for all together (%(default)s)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parsers (all)")
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS, metavar="DIR")
    parser.add_argument("--write", action="store_true", help="put a row into the ledger")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SECONDS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        fuzz(args.one[0], args.corpus / args.one[0].replace(" ", "-"), int(args.one[1]))
        return
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install -c constraints.txt -e '.[fuzz]'")
    from checks.parsers import CASES

    names = args.only or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no parser is called {', '.join(unknown)}: there are {', '.join(CASES)}")
    seconds = max(1, round(args.minutes * 60 / len(names)))
    counts = {name: _in_a_process(name, args.corpus, seconds) for name in names}
    rows = [
        ledger.Row(
            f"{name}: inputs in {seconds} s, each refused in one line or within its rules", f"{count:,}"
        )
        for name, count in counts.items()
    ]
    ledger.show("Parsers under a fuzzer", rows)
    if args.write:
        ledger.write("fuzz", f"python benchmarks/fuzz.py --minutes {args.minutes:g}", ledger.rows_table(rows))


def _in_a_process(name: str, corpus: Path, seconds: int) -> int:
    """Return how many inputs a parser was given; ends the program when one of them broke it."""
    print(f"{name}: {seconds} s", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--corpus", str(corpus), "--one", name, str(seconds)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    counted = COUNT.search(done.stdout)
    if done.returncode or counted is None:
        print(done.stdout[-6000:], file=sys.stderr)
        print(f"{name}: broken; the bytes are in {corpus}", file=sys.stderr)
        raise SystemExit(1)
    return int(counted[1])


if __name__ == "__main__":
    main()
