"""A real browser on this machine, without a window: Chromium, by its own driver."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), "")
DRIVER = shutil.which("chromedriver") or ""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def why_not() -> str:
    """Return why there is no browser here, "" when there is."""
    return (
        "" if CHROMIUM and DRIVER else "Chromium and its driver are not installed: nobody looks at the page"
    )


@contextlib.contextmanager
def browser() -> Iterator["Chrome"]:
    """Start a browser without a history, and end it with the block."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    folder = Path(tempfile.mkdtemp(prefix="chromium"))
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(folder, ignore_errors=True)


def shown_as(driver: "Chrome", width: int, height: int, scheme: str = "light") -> None:
    """Let the browser be a screen of a size, in a scheme of colours."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
