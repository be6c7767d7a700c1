"""The report page as a file: nothing is loaded, names cannot become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from coexec.base.errors import SaveError
from coexec.report.compare import compare
from coexec.report.html import SCRIPTS, TEMPLATES, write_comparison_html, write_html
from coexec.report.record import ProfileRecord
from coexec.report.wording import without_specifications
from tests.profile_record import TRACK, make_record

HOSTILE = "</script><script>alert('x')</script>&<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Elements with their attributes, and the text within each kind of element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    @property
    def data(self) -> Any:
        """What the page's script reads."""
        return json.loads(self.texts["script"][0])

    @property
    def records(self) -> Any:
        """The records in it, lists as lists again."""
        return unpack(self.data["records"])


def test_the_fixture_has_the_keys_of_a_record() -> None:
    assert set(make_record()) == set(ProfileRecord.__annotations__)


def test_everything_is_in_the_one_file(tmp_path: Path) -> None:
    write_html(make_record(), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.open == []
    addresses = [
        value for _, attributes in page.elements for key, value in attributes.items()
        if key in {"src", "href", "srcset", "data", "action"}
    ]  # fmt: skip
    assert addresses == ["data:,"]  # an empty icon, so that browsers do not ask for one
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    without_namespace = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", without_namespace)


def test_only_the_script_of_the_page_may_run(tmp_path: Path) -> None:
    write_html(make_record(), tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    policies = [a["content"] for tag, a in page.elements if a.get("http-equiv")]
    assert len(policies) == 1
    for kind, text in (("script", page.texts["script"][1]), ("style", page.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in str(policies[0])
    assert str(policies[0]).startswith("default-src 'none'")
    scripts = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", scripts)


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    record = make_record(model=HOSTILE.replace("/", ""))
    record["verdict"] = record["advice"][0]["title"] = HOSTILE
    for event in record["events"]:
        event["name"] = event["source"] = HOSTILE
    write_html(record, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert page.open == []
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert "img" not in {tag for tag, _ in page.elements}
    assert page.records[0]["verdict"] == HOSTILE
    assert {event["name"] for event in page.records[0]["events"]} == {HOSTILE}
    assert page.texts["p"][0] == HOSTILE


def alike(found: Any, wanted: Any) -> bool:
    """Equal, but for the digits that the page leaves out."""
    if isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-5, abs_tol=1e-6)
    return bool(found == wanted)


def test_lists_come_back_from_their_columns(tmp_path: Path) -> None:
    record = make_record()
    write_html(record, tmp_path / "report.html")
    found = Page(tmp_path / "report.html").records[0]
    for key in ("events", "operators", "layers", "memory", "advice"):
        assert len(found[key]) == len(record[key])
        for row, wanted in zip(found[key], record[key], strict=True):
            assert row.keys() == wanted.keys()
            assert all(alike(row[name], value) for name, value in wanted.items()), (row, wanted)
    (points,) = (roof["points"] for roof in found["roofline"].values())
    assert [p["name"] for p in points] == [p["name"] for p in record["roofline"][TRACK]["points"]]


def test_lists_of_different_objects_stay_as_they_are(tmp_path: Path) -> None:
    record = make_record()
    record["fallbacks"] = [str(number) for number in range(9)]
    record["advice"] = [{"title": "a"}, {"title": "b"}, {"title": "c"}, {"other": "d"}]
    write_html(record, tmp_path / "report.html")
    found = Page(tmp_path / "report.html").records[0]
    assert found["fallbacks"] == record["fallbacks"]
    assert found["advice"] == record["advice"]


def test_times_of_a_long_step_keep_their_nanoseconds(tmp_path: Path) -> None:
    record = make_record()
    record["events"][0]["start_ms"] = 98_765.432101
    write_html(record, tmp_path / "report.html")
    assert Page(tmp_path / "report.html").records[0]["events"][0]["start_ms"] == 98_765.432101


def test_values_that_json_lacks_become_null(tmp_path: Path) -> None:
    record = make_record()
    record["operators"][0]["gflops"] = math.nan
    record["operators"][1]["gflops"] = math.inf
    write_html(record, tmp_path / "report.html")
    rows = Page(tmp_path / "report.html").records[0]["operators"]
    assert [row["gflops"] for row in rows[:2]] == [None, None]


def unpack(value: Any) -> Any:
    """What the page's script does with columns."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "columns" not in value:
        return {key: unpack(item) for key, item in value.items()}
    rows: list[dict[str, Any]] = [{} for _ in range(value["length"])]
    for key, column in value["columns"].items():
        for index, row in enumerate(rows):
            if isinstance(column, list):
                row[key] = column[index]
            elif "all" in column:
                row[key] = column["all"]
            else:
                row[key] = column["texts"][column["places"][index]]
    return rows


def test_size_of_the_page(tmp_path: Path) -> None:
    """The page itself is small, and an event of a step costs some 50 bytes."""
    record = make_record()
    write_html(record, tmp_path / "small.html")
    small = (tmp_path / "small.html").stat().st_size
    assert small < 100_000
    record["events"] = record["events"] * 50
    write_html(record, tmp_path / "large.html")
    added = (tmp_path / "large.html").stat().st_size - small
    assert added / (49 / 50 * len(record["events"])) < 60


def test_a_page_of_two_runs(tmp_path: Path) -> None:
    records = [make_record(), make_record(2.0)]
    write_comparison_html(
        compare(records[0], records[1], ("a.json", "b.json")), records, tmp_path / "both.html"
    )
    page = Page(tmp_path / "both.html")
    assert page.texts["h1"] == ["A: a.json  →  B: b.json"]
    assert len(page.records) == 2
    assert page.data["comparison"]["ratio"] < 0.6


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("on sim:snapdragon-865/gpu?numerics=none (6 ms)", "on snapdragon-865/gpu (6 ms)"),
        ("sim:helio-p35/cpu:1prime+3big.", "helio-p35/cpu:1prime+3big."),
        (
            "sim:a/gpu?engine=tflite&numerics=none&wait=flag: Conv",
            "a/gpu (engine=tflite, wait=flag): Conv",
        ),
        ("opencl:pocl?cores=1", "opencl:pocl?cores=1"),
        ("slim:a/gpu", "slim:a/gpu"),
    ],
)
def test_simulated_processors_are_shown_without_what_changes_no_time(text: str, shown: str) -> None:
    assert without_specifications(text) == shown


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"cannot write .*report\.html"):
        write_html(make_record(), tmp_path / "missing" / "report.html")


def luminance(colour: str) -> float:
    """Relative luminance of ``#rgb`` or ``#rrggbb`` (WCAG 2.2)."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [":root {", ':root[data-theme="dark"] {'])
def test_text_is_readable_on_its_background(theme: str) -> None:
    """4.5 is what WCAG AA asks of text, 3 of a graphic against what lies behind it."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    block = style[style.index(theme) : style.index("}", style.index(theme))]
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", block))
    for name, colour in colours.items():
        if name.startswith("on-"):
            assert contrast(colour, colours[name.removeprefix("on-")]) >= 4.5, name
    for text in ("ink", "soft", "good", "bad", "accent"):
        for ground in ("card", "page", "hover"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in ("forward", "backward", "optimizer", "other"):
        assert contrast(colours[mark], colours["card"]) >= 3, mark
