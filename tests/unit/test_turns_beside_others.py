"""Turns of plans on a machine on which others compute, too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coexec.base.others import Others
from coexec.planning.turns import Calm, turns

look = Others.look  # other tests have none
CALM, NOISY = 0.0625, 0.125
"""Seconds of a run: sums of them are exact."""


class Noise(Calm):
    """Others compute until so many looks at them were made; for ever without that."""

    def __init__(self, looks: float = float("inf")) -> None:
        super().__init__(patience=2.0)
        self.left = looks

    def was(self) -> bool:
        self.left -= 1
        return self.left < 0


def turns_beside(noise: Noise, seconds: float = 1.0) -> list[float]:
    """Microseconds of the turns that count, which begin with noise."""
    now = [0.0]

    def run() -> None:
        now[0] += NOISY if noise.left > 0 else CALM

    return turns({"a": run}, seconds, lambda: now[0], calm=noise)["a"]


def test_turns_beside_other_processes_are_made_again() -> None:
    noise = Noise(looks=3)
    found = turns_beside(noise)
    assert found == [CALM * 1e6] * len(found)
    assert len(found) >= 9
    assert not noise.disturbed


def test_all_turns_count_where_other_processes_never_end() -> None:
    noise = Noise()
    found = turns_beside(noise)
    assert found == [NOISY * 1e6] * len(found)
    assert noise.disturbed
    assert noise.patience <= 0


def test_who_waited_for_calm_in_vain_does_not_wait_again() -> None:
    noise = Noise(looks=1000)
    turns_beside(noise)
    looks = noise.left
    turns_beside(noise)
    assert looks - noise.left <= 10


def test_turns_say_something_again_once_it_is_calm() -> None:
    noise = Noise()
    turns_beside(noise)
    noise.left = 0
    turns_beside(noise)
    assert not noise.disturbed


def stat(folder: Path, busy: int) -> Path:
    """Counters of a machine whose cores each were busy for so many hundredths of a second."""
    file = folder / "stat"
    lines = (f"cpu{core} {busy} 0 0 7 0 0 0 0 0 0" for core in os.sched_getaffinity(0))
    file.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 10", *lines, "intr 5 0 0"]))
    return file


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no cores to ask for")
def test_what_others_compute_is_what_this_process_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wall, own = [10.0], [2.0]
    monkeypatch.setattr("coexec.base.others.time.perf_counter", lambda: wall[0])
    monkeypatch.setattr("coexec.base.others.time.process_time", lambda: own[0])
    cores = len(os.sched_getaffinity(0))
    others = Others(stat(tmp_path, 100))
    wall[0], own[0] = 12.0, 3.0
    stat(tmp_path, 200)
    assert look(others) == pytest.approx((cores - 1) / 2)
    wall[0], own[0] = 13.0, 9.0
    assert look(others) == 0.0


def test_without_counters_nobody_is_there(tmp_path: Path) -> None:
    others = Others(tmp_path / "none")
    assert look(others) == 0.0


def test_a_system_that_keeps_its_counts_to_itself_disturbs_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Android denies apps the file; a folder in its place cannot be read either."""
    others = Others(tmp_path)
    assert look(others) == 0.0
    assert look(others) == 0.0
    assert [f"cannot read {tmp_path}" in text for text in caplog.messages] == [True]
