"""Comparison of two profile records, as data and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coexec.base.errors import DataError
from coexec.report.compare import compare, read_record
from tests.pipeline.command import coexec
from tests.profile_record import TRACK, make_record


def save(path: Path, record: Any) -> Path:
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def row(name: str, ms: float, launches: int = 1) -> dict[str, Any]:
    return {**make_record()["operators"][0], "name": name, "ms": ms, "launches": launches}


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    earlier = make_record()
    del earlier["in_floats"]
    (tmp_path / "a.json").write_text(json.dumps(earlier), encoding="utf-8")
    assert read_record(tmp_path / "a.json") == earlier


def test_wall_time_and_categories() -> None:
    before, after = make_record(), make_record(2.0)
    found = compare(before, after)
    assert found["ratio"] == after["wall_ms"] / before["wall_ms"]
    assert found["wall_ms"] == [before["wall_ms"], after["wall_ms"]]
    (track,) = found["tracks"]
    assert track["name"] == TRACK
    assert [change["name"] for change in track["categories"]] == list(before["categories"][TRACK])
    compute = track["categories"][0]
    assert compute["ratio"] == pytest.approx(0.5)
    assert compute["delta_ms"] == pytest.approx(-compute["after_ms"])
    assert sum(c["delta_ms"] for c in track["categories"]) == pytest.approx(
        after["wall_ms"] - before["wall_ms"]
    )


def test_operators_by_the_size_of_their_change() -> None:
    before, after = make_record(), make_record()
    before["operators"] = [row("Conv", 10.0), row("Gemm", 5.0), row("Cast", 1.0, launches=7)]
    after["operators"] = [row("Conv", 9.5), row("Gemm", 8.0), row("Transpose", 2.0, launches=3)]
    changes = compare(before, after)["operators"]
    assert [(c["name"], c["delta_ms"]) for c in changes] == [
        ("Gemm", 3.0),
        ("Transpose", 2.0),
        ("Cast", -1.0),
        ("Conv", -0.5),
    ]
    by_name = {change["name"]: change for change in changes}
    assert by_name["Transpose"]["ratio"] is None
    assert (by_name["Transpose"]["before_ms"], by_name["Transpose"]["after_launches"]) == (0, 3)
    assert (by_name["Cast"]["after_ms"], by_name["Cast"]["before_launches"]) == (0, 7)


def test_tracks_of_different_names() -> None:
    before, after = make_record(), make_record()
    after["categories"] = {"opencl:intel": after["categories"][TRACK]}
    (only,) = compare(before, after)["tracks"]
    assert only["name"] == f"{TRACK} → opencl:intel"
    assert all(change["delta_ms"] == 0 for change in only["categories"])
    after["categories"][TRACK] = before["categories"][TRACK]
    tracks = {track["name"]: track["categories"] for track in compare(before, after)["tracks"]}
    assert set(tracks) == {TRACK, "opencl:intel"}
    assert {change["before_ms"] for change in tracks["opencl:intel"]} == {0.0}


@pytest.mark.parametrize(
    ("speed", "words"), [(2.0, "times as fast as A"), (0.5, "times as long as A")]
)
def test_verdict(speed: float, words: str) -> None:
    verdict = compare(make_record(), make_record(speed))["verdict"]
    assert words in verdict
    assert "ConvGrad changed most" in verdict


def test_verdict_of_a_run_with_itself() -> None:
    found = compare(make_record(), make_record())
    assert found["verdict"].startswith("B is 1.00 times as fast as A")
    assert "changed most" not in found["verdict"]
    assert found["differences"] == []


def test_what_else_differs() -> None:
    after = make_record(model="other.onnx")
    after["options"]["optimizer"] = "adam"
    after["options"]["clip_norm"] = 1.0
    assert compare(make_record(), after)["differences"] == [
        "model: resnet_tiny.onnx in A, other.onnx in B",
        "clip_norm: none in A, 1.0 in B",
        "optimizer: sgd in A, adam in B",
    ]


# Files


def test_a_record_is_read_back(tmp_path: Path) -> None:
    record = make_record()
    assert read_record(save(tmp_path / "a.json", record)) == record


def no_number() -> dict[str, Any]:
    record = make_record()
    record["operators"][0]["ms"] = "fast"
    return record


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("not json", r"is not JSON"),
        ("[1, 2]", r"holds no JSON object"),
        ('{"error": "x", "kind": "ModelError"}', r"is no profile record: advice, .* missing"),
        (json.dumps({**make_record(), "format": 99}), r"has format 99, this coexec reads format 2"),
        (json.dumps(no_number()), r"damaged profile record: a time is no number"),
        (json.dumps({**make_record(), "wall_ms": 0}), r"damaged profile record"),
        (json.dumps({**make_record(), "operators": [{"ms": 1}]}), r"damaged .*'name'"),
        (json.dumps({**make_record(), "categories": [1]}), r"damaged profile record"),
    ],
)
def test_files_that_are_no_records(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        read_record(path)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\xff\xfe")
    with pytest.raises(DataError, match="is not JSON"):
        read_record(tmp_path / "model.onnx")
    with pytest.raises(DataError, match="No such file"):
        read_record(tmp_path / "missing.json")


# Command line


def test_command_for_people(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.json", make_record()), save(tmp_path / "b.json", make_record(2.0))
    done = coexec("compare", a, b, "--html", tmp_path / "both.html")
    assert done.status == 0
    assert "times as fast as A" in done.out
    for word in ("compute", "dispatch", "operators that changed most", "ConvGrad", "0.50"):
        assert word in done.out
    bars = [line.count("█") for line in done.out.splitlines() if "█" in line]
    assert bars[0] == 24  # compute of A is the longest
    assert bars[1] == 12
    assert (tmp_path / "both.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_command_for_programs(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.json", make_record()), save(tmp_path / "b.json", make_record(2.0))
    record = coexec("compare", a, b, "--json").record
    assert record == compare(make_record(), make_record(2.0), (str(a), str(b)))


def test_command_refuses_other_files(tmp_path: Path) -> None:
    a = save(tmp_path / "a.json", make_record())
    b = save(tmp_path / "b.json", {"median_ms": 1.0})
    done = coexec("compare", a, b, "--json")
    assert done.status == 1
    assert done.error["kind"] == "DataError"
    assert str(b) in done.error["error"]


def test_command_tries_the_page_first(tmp_path: Path) -> None:
    done = coexec("compare", "a.json", "b.json", "--html", tmp_path / "no" / "x.html")
    assert done.status == 2
    assert "--html" in done.err


def test_help_shows_an_example() -> None:
    assert "Example: coexec compare" in " ".join(coexec("compare", "--help").out.split())
