"""The page of a fleet, in a real browser; what monitoring reads; and who sees either."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from simulators import browser as browsers
from simulators.caller import Caller, features, statistics
from simulators.hosting import Hosted, hosting
from simulators.listing import list_bundle

from host_trainer.server import bundles, devices, words
from host_trainer.server.fleet import Fleet, open_fleet
from host_trainer.server.jobs import RETRAIN, Jobs
from host_trainer.server.limits import Limits
from host_trainer.server.rules.rollout import Rollout, place
from host_trainer.server.tables import Device
from host_trainer.server.upkeep import Upkeep
from host_trainer.server.web.app import make_app
from host_trainer.server.web.page import A_PAGE, Page

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

NOW = 1_800_000_000
NAMES = [f"pi-{k}" for k in range(8)]
ODD = "pi-<b>&amp;"  # nobody enrols under it, but a page must not trust its database
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
HERE = Path(__file__).parent


@pytest.fixture
def told(folder: Path) -> Iterator[Hosted]:
    """A host whose fleet has something of everything."""
    list_bundle(folder, 3)
    list_bundle(folder, 4)
    with hosting(folder, clock=lambda: NOW) as host:
        callers = {name: Caller(host.url, NOW) for name in NAMES}
        for name, caller in callers.items():
            caller.enrol(host.token(name))
            caller.sync(1, statistics(name), features(name), bundle=3, suspects=0, accuracy=850)
        with host.fleet.database.writing() as session:
            bundles.adopt(session, host.fleet.place, NOW - 7200)
            rollout = Rollout(share=500, steps=(1000,), success=900, error=400)
            bundles.roll_out(session, "waste", "canary", 4, rollout, NOW - 3600)
        for name, caller in callers.items():
            if name == first_in_line():
                caller.sync(2, bundle=3, install="rollback", tried=4, reason="accuracy fell", suspects=3)
            elif place(name, "waste", 4) < 500:
                caller.sync(2, bundle=4, suspects=0, accuracy=910)
        with host.fleet.database.writing() as session:
            devices.revoke(session, NAMES[0], discard=True)
            session.get_one(Device, NAMES[1]).seen_at = NOW - 9 * words.DAY
            session.add(
                Device(
                    name=ODD,
                    key=bytes(32),
                    hardware=[],
                    runtime="0",
                    model="waste",
                    channel="canary",
                    level="statistics",
                    enrolled_at=NOW,
                )
            )
        Jobs(host.fleet.database).put(RETRAIN, "waste", {}, NOW - 600)
        yield host


def first_in_line() -> str:
    return min(NAMES[2:], key=lambda name: place(name, "waste", 4))


@pytest.fixture(scope="module")
def browser() -> Iterator["Chrome"]:
    if why := browsers.why_not():
        pytest.skip(why)
    with browsers.browser() as driver:
        yield driver


def shown(browser: "Chrome", selector: str) -> list[str]:
    from selenium.webdriver.common.by import By

    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, selector)]


def contrast(browser: "Chrome", selector: str) -> float:
    """Return the contrast of a text on the ground behind it, as WCAG has it."""
    script = """
    const element = document.querySelector(arguments[0]);
    const none = 'rgba(0, 0, 0, 0)';
    let ground = element;
    while (ground && getComputedStyle(ground).backgroundColor === none) ground = ground.parentElement;
    return [getComputedStyle(element).color, getComputedStyle(ground || document.body).backgroundColor];
    """

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted(map(light, browser.execute_script(script, selector)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def keep_picture(browser: "Chrome", name: str) -> None:
    """Leave a picture where somebody wants to look at it: KEEP_PICTURES names a folder."""
    if folder := os.environ.get("KEEP_PICTURES"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_it_shows_the_fleet_and_what_needs_a_person(told: Hosted, browser: "Chrome") -> None:
    browsers.shown_as(browser, 1200, 1600)
    browser.get(f"{told.url}/")
    assert browser.title == "FLEET - edge-cl"
    rows = dict(
        zip(
            shown(browser, "#devices ~ table tbody th"),
            shown(browser, "#devices ~ table tbody tr"),
            strict=True,
        )
    )
    assert rows.keys() == {*NAMES, ODD}
    assert "revoked" in rows[NAMES[0]]
    assert "1 week ago" in rows[NAMES[1]]
    assert "just now" in rows[NAMES[2]]
    assert "rollback 4" in rows[first_in_line()]
    assert "never" in rows[ODD]
    notes = "\n".join(shown(browser, ".notes li"))
    assert f"{first_in_line()} rolled bundle 4 back: accuracy fell" in notes
    assert f"{first_in_line()} has 3 samples whose label looks wrong" in notes
    assert f"{NAMES[0]} 2 of its contents set aside: the device was revoked" in notes
    assert f"{NAMES[1]} was last seen 1 week ago" in notes
    (rollout,) = shown(browser, ".rollout")
    assert "Bundle 4 of waste in canary: offered to 50 %, then 100 %" in rollout.replace("\n", " ")
    assert shown(browser, "#releases ~ table tbody th") == ["4", "3"]
    assert shown(browser, "#jobs ~ table tbody th") == ["retrain waste"]
    faults = [each for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert faults == []
    keep_picture(browser, "wide-light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_in_dark(told: Hosted, browser: "Chrome", scheme: str) -> None:
    browsers.shown_as(browser, 1200, 1600, scheme)
    browser.get(f"{told.url}/")
    for selector in (
        "h1",
        ".quiet",
        ".tiles dt",
        ".tiles dd",
        ".notes li",
        "td",
        "thead th",
        "td .bad",
        ".rollout p",
    ):
        assert contrast(browser, selector) >= LEAST_CONTRAST, selector
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 3 * 128) == (scheme == "dark")
    keep_picture(browser, f"wide-{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_phone(told: Hosted, browser: "Chrome", scheme: str) -> None:
    browsers.shown_as(browser, 360, 2400, scheme)
    browser.get(f"{told.url}/")
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 360
    labels = browser.execute_script(
        "return getComputedStyle(document.querySelector('#devices ~ table td'), '::before').content"
    )
    assert labels == '"Last seen"'
    keep_picture(browser, f"phone-{scheme}")


def test_an_empty_fleet_says_what_to_do(folder: Path, browser: "Chrome") -> None:
    with hosting(folder, clock=lambda: NOW) as host:
        browsers.shown_as(browser, 1200, 900)
        browser.get(f"{host.url}/")
        assert "host-trainer enroll NAME FLEET" in shown(browser, "main")[0]


def test_a_large_fleet_comes_in_pages(small_fleet: Fleet) -> None:
    with small_fleet.database.writing() as session:
        for number in range(2 * A_PAGE + 1):
            session.add(
                Device(
                    name=f"pi-{number:04}",
                    key=bytes(32),
                    hardware=[],
                    runtime="0",
                    model="waste",
                    channel="stable",
                    level="statistics",
                    enrolled_at=NOW,
                    suspects=1,
                )
            )
    page = Page(small_fleet, None, lambda: NOW)
    texts = [page.text(number) for number in (1, 2, 3, 99)]
    assert [text.count("<tr>\n<th scope") for text in texts] == [A_PAGE, A_PAGE, 1, 1]
    assert "page 1 of 3" in texts[0]
    assert "201 devices were not seen for a day" in texts[0]
    assert "201 samples have a label that looks wrong" in texts[0]


def test_what_the_host_cannot_do_is_told(small_fleet: Fleet) -> None:
    upkeep = Upkeep(small_fleet, Limits(), lambda: NOW)
    upkeep.faults["renew the repository"] = "the key <timestamp-1> is not here"
    text = Page(small_fleet, upkeep, lambda: NOW).text()
    assert "cannot renew the repository: the key &lt;timestamp-1&gt; is not here" in text


def test_monitoring_gets_sums_and_no_names(told: Hosted) -> None:
    text = Caller(told.url, NOW).request("GET", "/metrics").body.decode()
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert found['edge_cl_devices{state="active"}'] == "8.0"
    assert found['edge_cl_devices{state="revoked"}'] == "1.0"
    assert found["edge_cl_devices_rolled_back"] == "1.0"
    assert found["edge_cl_suspects"] == "3.0"
    assert found['edge_cl_rollout_ratio{bundle="4",channel="canary",model="waste"}'] == "0.5"
    assert found['edge_cl_contents{level="statistics",state="committed"}'] == "7.0"
    assert found['edge_cl_requests_total{route="/v1/round",status="200"}'] != "0.0"
    assert float(found['edge_cl_bytes_total{way="up"}']) > 1000
    assert not [line for line in text.splitlines() if "pi-" in line]
    nonsense = Caller(told.url, NOW)
    for number in range(5):
        nonsense.request("GET", f"/nonsense/{number}")
    text = nonsense.request("GET", "/metrics").body.decode()
    assert 'edge_cl_requests_total{route="other",status="404"} 5.0' in text


def test_the_page_is_for_this_machine_unless_it_is_for_all(folder: Path) -> None:
    with hosting(folder, clock=lambda: NOW) as host:
        caller = Caller(host.url, NOW)
        for path in ("/", "/metrics"):
            assert caller.request("GET", path).status == 200
            # A page of elsewhere whose name was made to point here.
            assert caller.request("GET", path, headers={"Host": "evil.example"}).status == 403
        assert (
            caller.request("GET", "/repository/metadata/timestamp.json", headers={"Host": "h"}).status == 200
        )


def test_shown_to_all_it_is_shown_under_any_name(folder: Path) -> None:
    from simulators.hosting import listening, running, server_of

    with open_fleet(folder) as fleet:
        found = listening("127.0.0.1", 0)
        app = make_app(fleet, Limits(), lambda: NOW, is_public=True)
        with running(server_of(app, Limits(), None), found):
            caller = Caller(f"http://127.0.0.1:{found.getsockname()[1]}", NOW)
            assert caller.request("GET", "/", headers={"Host": "host.example"}).status == 200


def test_it_runs_no_program_and_loads_nothing_from_elsewhere(told: Hosted) -> None:
    answer = Caller(told.url, NOW).request("GET", "/")
    assert "script" not in answer.body.decode()
    assert not re.findall(r"(?:src|href)=\"(?!/|data:,)", answer.body.decode())
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert ODD.encode() not in answer.body


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (None, "never"),
        (NOW, "just now"),
        (NOW - 89, "just now"),
        (NOW - 300, "5 minutes ago"),
        (NOW - 3600, "1 hour ago"),
        (NOW - 2 * 86_400, "2 days ago"),
        (NOW - 30 * 86_400, "4 weeks ago"),
        (NOW + 5, "just now"),
    ],
)
def test_times_are_said_as_people_do(at: int | None, said: str) -> None:
    assert words.ago(at, NOW) == said


def test_sizes_and_shares_are_said_as_people_do() -> None:
    assert [words.size(count) for count in (0, 999, 1000, 12_345_678, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "1 kB",
        "12 MB",
        "5000 GB",
    ]
    assert [words.percent(share) for share in (None, 0, 895, 1000)] == ["-", "0 %", "89.5 %", "100 %"]
