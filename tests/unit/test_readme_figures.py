"""README's figures of speed are those of the pages that the benchmarks write."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WORDS = " ".join(README.split())
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
PAIRS = (ROOT / "docs" / "benchmarks-avx512.md").read_text()
SUITES = {
    "training steps": "Training steps",
    "convolutions": "Convolutions",
    "inference of one image": "Inference, one image of 224 x 224",
    "norms, pooling, softmax, optimizers": "Memory-bound work",
    "matrix products": "Matrix products",
}
"""What README calls a suite, and the heading of its section begins with."""


def cells(text: str, first: str) -> list[str]:
    """The cells of the table's row whose first one begins so."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    assert rows, f"no row of {first}"
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize("name", SUITES)
def test_ratios_to_the_best_peer_are_the_summary_of_their_suite(name: str) -> None:
    stated = cells(README, name)[-2:]
    rows = [cells(section(SUITES[name]), f"coexec {each} | all") for each in ("pocl", "intel")]
    assert stated == [f"{mean} ({worst})" for _, _, _, mean, worst, _ in rows]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("training steps", "training steps take {} to {} of the time"),
        ("convolutions", "convolutions {} to {};"),
        ("matrix products", "matrix products with {} to {},"),
    ],
)
def test_the_first_screen_has_the_means_of_both_runtimes(name: str, sentence: str) -> None:
    means = (cell.partition(" ")[0] for cell in cells(README, name)[-2:])
    assert sentence.format(*sorted(means, key=float)) in WORDS


def test_the_first_screen_has_the_time_within_half_of_the_memory() -> None:
    (factor,) = re.findall(
        r"ResNet-18 and ResNet-50 in half of theirs at [\d.]+ and ([\d.]+\d)", WORDS
    )
    assert f"ResNet-50 trains in half of its memory at {factor} of the time" in WORDS


@pytest.mark.parametrize("line", re.findall(r"^\| (.*, batch \d+) \|", README, re.MULTILINE))
def test_times_of_training_steps_are_those_of_the_page(line: str) -> None:
    stated = [value(cell) for cell in cells(README, f"{line} |")[1:]]
    case = re.sub(r" \((\d+) x (\d+)\)", r" \1x\2", line)
    rows = [cells(section("Training steps"), f"{case} | coexec {each} |") for each in PEERS]
    found = [value(row[2]) for row in rows] + [value(row[4]) for row in rows[:1]]
    assert stated == pytest.approx(found, rel=0.005)


PEERS = ("pocl", "intel")


def value(cell: str) -> float:
    """Milliseconds of a time, whatever stands in front of it."""
    found = re.search(r"([\d.]+) (m?s)$", cell)
    assert found, cell
    return float(found[1]) * (1 if found[2] == "ms" else 1e3)


def speedups(work: str) -> list[str]:
    """Cells that groups beginning so call for: geometric means in order, and the least case."""
    pattern = (
        rf"^\| {work}, \w+: [^|]* the best processor alone \|.*mean ([\d.]+)x, least ([\d.]+)x"
    )
    found = re.findall(pattern, PAIRS, re.MULTILINE)
    assert found, f"no group of {work}"
    means, leasts = (sorted(each, key=float) for each in zip(*found, strict=True))
    return [means[0] if len(means) == 1 else f"{means[0]} to {means[-1]}", leasts[0]]


def shares(work: str, beside: str) -> list[int]:
    """Percent of the speed of what groups are set beside: their geometric means in order."""
    pattern = rf"^\| (?:{work}), \w+: speed of [^|]* {beside} \|.*mean (\d+)%"
    return sorted(int(each) for each in re.findall(pattern, PAIRS, re.MULTILINE))


@pytest.mark.parametrize(
    ("line", "work"),
    [
        ("training steps, in shares", "training"),
        ("networks on one image, by", "models"),
        ("divided layers", "layers"),
        ("streams of images", "streams"),
    ],
)
def test_speedups_by_two_processors_are_those_of_the_page(line: str, work: str) -> None:
    assert cells(README, line)[1:] == speedups(work)


def test_limits_of_two_processors_are_those_of_the_page() -> None:
    tried = shares("layers", "the best ratio found")
    whole = "the faster runtime on both cores"
    (step,), others = shares("training", whole), shares("models|layers", whole)
    off = re.search(r"measured \|[^|]*\| median ([\d.]+)% of (\d+) plans", PAIRS)
    assert off
    for stated in (
        f"training reaches {step} % of its speed",
        f"networks and layers {others[0]} to {others[-1]} %",
        f"reach {tried[0]} to {tried[-1]} % of the best ratio found",
        f"predictions are {off[1]} % off (median of {off[2]} plans)",
    ):
        assert stated in WORDS
