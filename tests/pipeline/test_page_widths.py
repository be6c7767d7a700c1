"""Pages at the widths of a desk, a laptop and a phone: nothing is cut, nothing internal shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coexec.report.compare import compare
from coexec.report.html import write_comparison_html, write_html
from coexec.report.validation_page import write_validation_page
from tests.pipeline.browser import NEEDED, Browser
from tests.profile_record import TRACK, make_record

pytestmark = NEEDED

WIDTHS = (1400, 1200, 400)
NARROW = 400
NAME = "sim:snapdragon-865/gpu?numerics=none"
SHOWN = "snapdragon-865/gpu"
LONGEST = "Greater+Where+coexec::BatchNormalizationGrad"
CUT = """
return [...document.querySelectorAll(".scroll, td, th, .tile .value, h1, h2, h3, p, li")]
  .filter((e) => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map((e) => `${e.tagName}.${e.className}: ${e.textContent.slice(0, 60)}`)
"""
BACKGROUND = "return getComputedStyle(document.querySelector('.card')).backgroundColor"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.driver.quit()


def renamed(value: Any) -> Any:
    """A record as of a simulated processor."""
    if isinstance(value, str):
        return value.replace(TRACK, NAME)
    if isinstance(value, dict):
        return {renamed(key): renamed(item) for key, item in value.items()}
    return [renamed(item) for item in value] if isinstance(value, list) else value


def simulated(speed: float = 1.0) -> dict[str, Any]:
    record: dict[str, Any] = renamed(make_record(speed))
    record["verdict"] = f"56 % of a training step on {NAME} is compute."
    record["fallbacks"] = [f"{LONGEST} x{n} not on {NAME}: no float32" for n in range(9)]
    record["operators"][0]["name"] = LONGEST
    return record


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    records = [simulated(), simulated(2.0)]
    write_html(records[0], folder / "profile.html")
    both = compare(records[0], records[1], ("before.json", "after.json"))
    write_comparison_html(both, records, folder / "compare.html")
    write_validation_page(validation(), folder / "validate.html")
    return {page.stem: page for page in folder.glob("*.html")}


def validation() -> dict[str, Any]:
    shares = {"mape": 0.123, "bias": -0.05, "within_10": 0.5, "within_20": 0.75}
    score = {"dataset": "tables_cpu_gpu_npu", "group": "tflite-published gpu float16", "rows": 9999}
    judged = {**score, **shares, "split": "data sheet alone", "baseline_mape": 0.44, "tau": 0.91}
    note = "layers of the network are not known (from line 2): " + ", ".join(["a_network 4"] * 99)
    check = {"file": "shapes_fully_connected_cnn.csv", "what": "square products, cpu", "note": note}
    return {
        "data": "phones",
        "verdict": "As shipped: 3 % off.",
        "fitted": "2026-01-31",
        "plots": [],
        "scores": [judged],
        "chips": [judged],
        "ratios": [],
        "checks": [{**check, "rows": 10, **shares}, {**check, "rows": 0}],
    }


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["profile", "compare", "validate"])
def test_no_column_is_cut(browser: Browser, pages: dict[str, Path], page: str, width: int) -> None:
    """On a phone tables scroll, and a name that is too long ends in an ellipsis."""
    browser.open(pages[page], (width, 900), script=page != "validate")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    allowed = ("DIV.scroll", "TD.text") if width == NARROW else ("nothing",)
    for view in (None, *browser.all(".head .tabs button")):
        if view is not None:
            view.click()
        assert [each for each in browser.js(CUT) if not each.startswith(allowed)] == []


def test_words_of_a_validation_are_not_broken(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["validate"], (1200, 900), script=False)
    heights = {cell.text: cell.size["height"] for cell in browser.all("td")}
    assert heights["tables_cpu_gpu_npu"] == heights["9,999"]


@pytest.mark.parametrize("page", ["profile", "compare"])
def test_simulated_processors_have_the_names_that_people_use(
    browser: Browser, pages: dict[str, Path], page: str
) -> None:
    browser.open(pages[page], (1200, 900))
    text = browser.js("return document.body.textContent.replace(data.textContent, '')")
    assert SHOWN in text
    assert "numerics" not in pages[page].read_text(encoding="utf-8")
    assert "sim:" not in text


def test_many_fallbacks_are_folded_into_a_line(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["profile"], (1200, 900))
    (folded,) = browser.all("details.warn")
    assert folded.text == "9 fallbacks: what is not where it was asked for"
    browser.all("summary", folded)[0].click()
    assert f"{LONGEST} x8 not on {SHOWN}: no float32" in folded.text


@pytest.mark.parametrize("page", ["profile", "compare", "validate"])
def test_colours_go_by_what_the_reader_prefers(
    browser: Browser, pages: dict[str, Path], page: str
) -> None:
    found = []
    for scheme in ("light", "dark"):
        browser.open(pages[page], (1200, 900), scheme, script=page != "validate")
        found.append(browser.js(BACKGROUND))
    assert found == ["rgb(255, 255, 255)", "rgb(23, 29, 36)"]
