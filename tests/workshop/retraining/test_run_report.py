"""The report says what was decided and why, and whatever a device calls itself stays text."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from simulators.foundry import KINDS, NEW, OLD, Fleet, send

from host_trainer.retraining import runs
from host_trainer.retraining.report import render
from host_trainer.retraining.session import REPORT, TOLD
from host_trainer.retraining.session import Told as Stages


class Words(HTMLParser):
    """Gathers the words of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.fetched: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]
        self.fetched += [tag] if tag in ("script", "link", "img", "iframe") else []


def read(page: str) -> tuple[str, list[str]]:
    found = Words()
    found.feed(page)
    return " ".join(found.words), found.fetched


def told(fleet: Fleet) -> Stages:
    run = runs.runs(fleet.folder)[-1]
    stages = {field: run.facts(stage) for field, stage in TOLD.items()}
    return Stages(run.number, run.order, **stages, result=run.result or {})


def test_who_sent_what_who_is_not_believed_and_what_was_decided(fleet: Fleet, contents: Path) -> None:
    for number in range(3):
        device = fleet.device(f"kitchen-{number}")
        samples = fleet.samples(device.name, KINDS, 12, 20 * (number + 1))
        send(contents, device.tell(samples), device.features(samples))
    liar, seen = fleet.device("liar"), fleet.samples("liar", KINDS, 15, 300)
    send(contents, liar.tell(replace(seen, labels=seen.labels[15:] + seen.labels[:15])))
    (contents / "9999-broken.content").write_bytes(b"rubbish")
    result = fleet.retrain(contents)
    page = (Path(result["folder"]) / REPORT).read_text(encoding="utf-8")
    words, fetched = read(page)
    assert not fetched
    assert "Bundle 2 is accepted and listed in canary" in words
    assert "kitchen-0 2" in words and "liar 1" in words
    assert "its classes agree with those of all others by" in words
    assert "too few for a message" in words
    assert all(kind in words for kind in KINDS) and "held-back samples" in words


def test_a_rejection_says_why(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    fleet.retrain(contents)
    stages = told(fleet)
    gate = {**stages.gate, "accepted": False, "reasons": [f"class {OLD[0]} falls from 90% to 60%"]}
    words, _ = read(render(stages._replace(gate=gate)))
    assert "Rejected: nothing was published" in words
    assert f"Why it was rejected class {OLD[0]} falls from 90% to 60%" in words


def test_names_are_only_text(fleet: Fleet, contents: Path) -> None:
    device = fleet.device("device-1")
    send(contents, device.tell(fleet.samples("device-1", [NEW], 14, 20)))
    fleet.retrain(contents)
    stages = told(fleet)
    name = "<script>alert(1)</script>"
    intake = {**stages.intake, "suspects": {name: name}, "notes": [name]}
    intake["aside"] = [[name, name, name]]
    page = render(stages._replace(intake=intake))
    assert "<script" not in page and read(page)[1] == []
