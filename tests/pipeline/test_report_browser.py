"""The report in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from coexec.report.compare import compare
from coexec.report.html import write_comparison_html, write_html
from tests.pipeline.browser import DESK, NEEDED, PHONE, Browser
from tests.profile_record import make_record

LOAD_MS = 3000
"""Far above what it takes, far below what a person would call slow."""

pytestmark = NEEDED


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return make_record()


@pytest.fixture(scope="module")
def report(record: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(record, path)
    return path


def test_bars_of_a_step_of_microseconds_are_as_long_as_others(
    browser: Browser, tmp_path: Path
) -> None:
    short = make_record(speed=1000.0)
    assert short["wall_ms"] < 1
    write_html(short, tmp_path / "short.html")
    browser.open(tmp_path / "short.html")
    covered = browser.js(
        "const bar = document.querySelector('.bar');"
        "const parts = [...bar.children].map((part) => part.getBoundingClientRect().width);"
        "return parts.reduce((one, other) => one + other, 0) / bar.clientWidth"
    )
    assert covered == pytest.approx(1.0, abs=0.01)


def test_it_renders_without_a_complaint(
    browser: Browser, report: Path, record: dict[str, Any]
) -> None:
    browser.open(report)
    titles = [heading.text for heading in browser.all("h2")]
    assert titles == [
        "Where the time goes",
        "Advice",
        "Timeline and memory",
        "Roofline",
        "Operators",
    ]
    assert browser.all("h1")[0].text == record["model"]
    assert browser.all(".verdict")[0].text == record["verdict"]
    shares = [item.text for item in browser.all(".legend li")]
    assert any("compute-bound kernels" in text and " ms" in text for text in shares)
    assert len(browser.all("circle")) == len(next(iter(record["roofline"].values()))["points"])
    assert len(browser.all(".advice article")) == len(record["advice"])
    assert len(browser.column(browser.card("Operators"), 1)) == len(record["operators"])
    assert browser.console() == []
    assert browser.js("return performance.getEntriesByType('resource').length") == 0
    assert int(browser.js("return document.documentElement.dataset.ready")) < LOAD_MS


def test_bars_are_as_long_as_their_shares(
    browser: Browser, report: Path, record: dict[str, Any]
) -> None:
    browser.open(report)
    bar = browser.all(".bar", browser.card("Where the time goes"))[0]
    categories = next(iter(record["categories"].values()))
    widths = [segment.size["width"] for segment in browser.all(".seg", bar)]
    wanted = [ms / record["wall_ms"] * bar.size["width"] for ms in categories.values() if ms > 0]
    # A segment is never narrower than the line at its side.
    assert widths == pytest.approx(wanted, abs=len(wanted))


def test_the_table_sorts_by_time_and_by_other_columns(
    browser: Browser, report: Path, record: dict[str, Any]
) -> None:
    browser.open(report)
    card = browser.card("Operators")
    by_time = [row["name"] for row in sorted(record["operators"], key=lambda row: -row["ms"])]
    assert browser.column(card, 1) == by_time
    time = browser.button(card, "time")
    head = time.find_element(By.XPATH, "..")
    assert head.get_attribute("aria-sort") == "descending"
    time.click()
    assert browser.column(card, 1) == by_time[::-1]
    assert head.get_attribute("aria-sort") == "ascending"
    browser.button(card, "GFLOP/s").click()
    by_rate = sorted(record["operators"], key=lambda row: -row["gflops"])
    assert browser.column(card, 1)[0] == by_rate[0]["name"]
    assert head.get_attribute("aria-sort") is None
    browser.button(card, "operator").click()
    names = sorted((row["name"] for row in record["operators"]), key=str.lower)
    assert browser.column(card, 1) == names


def test_the_table_has_views_and_a_filter(
    browser: Browser, report: Path, record: dict[str, Any]
) -> None:
    browser.open(report)
    card = browser.card("Operators")
    browser.all("input[type=search]", card)[0].send_keys("conv")
    assert set(browser.column(card, 1)) == {"Conv", "ConvGrad"}
    browser.button(card, "Layers").click()
    assert set(browser.column(card, 1)) == {"conv1", "conv2", "block1/conv/3x3"}
    browser.button(card, "Phases").click()
    assert browser.column(card, 1) == []
    browser.all("input[type=search]", card)[0].send_keys(Keys.BACKSPACE * 4)
    assert set(browser.column(card, 1)) == {row["name"] for row in record["phases"]}


def test_the_timeline_is_drawn_zooms_and_scrolls(browser: Browser, report: Path) -> None:
    browser.open(report)
    card = browser.card("Timeline and memory")
    canvas = browser.all("canvas", card)[0]
    colours = browser.js(
        "const c = arguments[0], p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "const seen = new Set(); for (let i = 0; i < p.length; i += 4) seen.add(p.slice(i, i + 3)"
        ".join()); return seen.size",
        canvas,
    )
    assert colours > 5

    def view() -> tuple[float, float]:
        data = browser.js("return [arguments[0].dataset.from, arguments[0].dataset.to]", canvas)
        return float(data[0]), float(data[1])

    first, last = view()
    browser.button(card, "+").click()
    left, right = view()
    assert right - left == pytest.approx((last - first) / 2)
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert view()[0] > left
    for _ in range(3):
        ActionChains(browser.driver).drag_and_drop_by_offset(canvas, 400, 0).perform()
    assert view()[0] == first  # no further than the start
    browser.button(card, "Whole step").click()
    assert view() == (first, last)


def test_the_timeline_says_what_a_slice_is(
    browser: Browser, report: Path, record: dict[str, Any]
) -> None:
    browser.open(report)
    canvas = browser.all("canvas", browser.card("Timeline and memory"))[0]
    event = max((e for e in record["events"] if e["kind"] == "launch"), key=lambda e: e["ms"])
    middle = (event["start_ms"] + event["ms"] / 2) / record["wall_ms"]
    x = round((middle - 0.5) * canvas.size["width"])
    # Axis, host with two lanes, a gap, the processor's label: then its lane.
    y = 24 + 18 + 2 * 24 + 8 + 18 + 12 - canvas.size["height"] // 2
    text = browser.hover(canvas, x, y)
    assert text.split("\n")[0] == event["operator"]
    assert f"node {event['name']}" in text
    assert "GFLOP/s" in text
    ActionChains(browser.driver).click().perform()
    detail = browser.all(".detail", browser.card("Timeline and memory"))[0]
    assert event["name"] in detail.text


def test_hovering_over_the_roofline_names_the_operator(
    browser: Browser, report: Path, record: dict[str, Any]
) -> None:
    browser.open(report)
    points = next(iter(record["roofline"].values()))["points"]
    slowest = max(points, key=lambda point: point["ms"])
    text = browser.hover(browser.all("circle")[0])  # drawn first, so that small ones lie above
    assert text.split("\n")[0] == slowest["operator"]
    assert f"node {slowest['name']}" in text
    assert "of the roofline" in text
    assert browser.hover(browser.all("h1")[0]) == ""


@pytest.mark.parametrize(
    ("clock", "limits"), [("device", "what was measured here"), ("virtual", "the nominal limits")]
)
def test_the_roofline_says_whose_limits_it_has(
    browser: Browser, record: dict[str, Any], tmp_path: Path, clock: str, limits: str
) -> None:
    processors = [{**each, "clock": clock} for each in record["processors"]]
    write_html({**record, "processors": processors}, tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert f"against {limits}" in browser.card("Roofline").text


def test_what_the_roofline_does_not_draw_is_counted_in_words(
    browser: Browser, record: dict[str, Any], tmp_path: Path
) -> None:
    (roof,) = record["roofline"].values()
    points = [{**point, "fraction": 0.5} for point in roof["points"]]
    for number, (lie, are) in enumerate(
        (
            ("1 node lies", "1 node without arithmetic is"),
            ("2 nodes lie", "2 nodes without arithmetic are"),
        ),
        1,
    ):
        for point in points[:number]:
            point["fraction"] = 1.5
        for point in points[-number:]:
            point["gflops"] = 0.0
        write_html({**record, "roofline": {"cpu": {**roof, "points": points}}}, tmp_path / "r.html")
        browser.open(tmp_path / "r.html")
        text = browser.card("Roofline").text
        assert f"{lie} above the roof" in text
        assert f"{are} not drawn" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(browser: Browser, report: Path, scheme: str) -> None:
    browser.open(report, PHONE, scheme)
    assert browser.js("return document.documentElement.dataset.theme") == scheme
    assert browser.js("return innerWidth") == PHONE[0]
    assert browser.js("return document.documentElement.scrollWidth") <= PHONE[0]
    small = browser.js(
        "return [...document.querySelectorAll('main *')].filter((e) => e.innerText && "
        "parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.outerHTML)"
    )
    assert small == []
    low = [b.text for b in browser.all(".tabs button, button.ghost") if b.size["height"] < 40]
    assert low == []
    assert browser.console() == []


def test_the_theme_can_be_switched(browser: Browser, report: Path) -> None:
    browser.open(report)
    light = browser.js("return getComputedStyle(document.body).backgroundColor")
    browser.all("#theme")[0].click()
    assert browser.js("return document.documentElement.dataset.theme") == "dark"
    assert browser.js("return getComputedStyle(document.body).backgroundColor") != light


def test_names_of_nodes_do_not_run(browser: Browser, tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=\"document.title='run'\"><b>x</b>"
    hostile_record = make_record(model="</script>x")
    point = next(iter(hostile_record["roofline"].values()))["points"][0]
    point["name"] = hostile_record["operators"][0]["name"] = hostile
    hostile_record["verdict"] = hostile_record["events"][0]["name"] = hostile
    write_html(hostile_record, tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    assert hostile in browser.column(browser.card("Operators"), 1)
    assert browser.all(".verdict")[0].text == hostile
    assert browser.all("main img, main b.x") == []
    assert "run" not in browser.driver.title
    assert browser.console() == []


def test_a_record_with_next_to_nothing_in_it(browser: Browser, tmp_path: Path) -> None:
    bare = make_record()
    for key in ("operators", "layers", "phases", "events", "memory", "advice"):
        bare[key] = []
    bare["roofline"] = bare["transfers"] = {}
    bare["fallbacks"] = ["Resize on opencl: no kernel"]
    bare["processors"][0]["clock"] = "host"
    write_html(bare, tmp_path / "report.html")
    browser.open(tmp_path / "report.html")
    notes = " ".join(note.text for note in browser.all(".note.warn"))
    assert "no profiling events" in notes
    assert "Resize on opencl: no kernel" in notes
    assert browser.console() == []


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_comparison(browser: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    records = [make_record(), make_record(2.0, model="faster.onnx")]
    comparison = compare(records[0], records[1], ("a.json", "b.json"))
    write_comparison_html(comparison, records, tmp_path / "both.html")
    browser.open(tmp_path / "both.html", size)
    assert "times as fast as A" in browser.all(".verdict")[0].text
    card = browser.card("Operators that changed most")
    assert browser.column(card, 1) == [change["name"] for change in comparison["operators"]]
    bars = browser.all(".bar", browser.card("Where the time goes, before and after"))
    used = [sum(part.size["width"] for part in browser.all(".seg", bar)[:3]) for bar in bars]
    assert used[1] / used[0] == pytest.approx(0.5, abs=0.03)
    second = next(b for b in browser.all(".tabs button") if b.text == "B: b.json")
    browser.js("arguments[0].click()", second)
    assert "faster.onnx" in browser.all("footer, .meta, .note.warn")[0].text
    assert browser.js("return document.documentElement.scrollWidth") <= size[0]
    assert browser.console() == []
