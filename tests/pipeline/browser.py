"""Headless Chromium, driven through chromedriver.

Both come from the system (Debian: ``apt install chromium chromium-driver``); without them tests are
skipped and say so.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
PHONE, DESK = (390, 844), (1200, 900)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NEEDED = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.skipif(CHROMEDRIVER is None, reason="chromedriver is not installed"),
]


"""Marks of tests that use it."""


class Browser:
    """One browser for all tests; every page is opened afresh."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))

    def open(
        self,
        path: Path,
        size: tuple[int, int] = DESK,
        scheme: str = "light",
        *,
        script: bool = True,
    ) -> None:
        """Open a page, and wait for its ``script``, if it has one."""
        width, height = size
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": height,
                "deviceScaleFactor": 1,
                "mobile": size == PHONE,
            },
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self.driver.get_log("browser")  # what an earlier page left
        self.driver.get(path.as_uri())
        if not script:
            return
        # The script sets this as its last act.
        assert self.js("return document.documentElement.dataset.ready") is not None, self.console()

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def console(self) -> list[str]:
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def all(self, selector: str, root: WebElement | None = None) -> list[WebElement]:
        return (root or self.driver).find_elements(By.CSS_SELECTOR, selector)

    def card(self, title: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, f'section[aria-label="{title}"]')

    def button(self, root: WebElement, text: str) -> WebElement:
        return next(b for b in self.all("button", root) if b.text.split("\n")[0] == text)

    def column(self, root: WebElement, index: int) -> list[str]:
        return [cell.text for cell in self.all(f"tbody td:nth-child({index})", root)]

    def hover(self, element: WebElement, x: int = 0, y: int = 0) -> str:
        """Move the pointer to (x, y) from the middle of an element; what the tooltip says then."""
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        # The page hides the tooltip when it scrolls, and hears of that with the next frame.
        frames = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
        self.driver.execute_async_script(frames)
        ActionChains(self.driver).move_to_element_with_offset(element, x, y).perform()
        return str(self.js("return tip.hidden ? '' : tip.innerText"))
