"""Branches side by side within divided schedules: where each of the two pays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coexec.placement.policies.operator_split import operator_split
from coexec.placement.policies.shift_cuts import Timed, timed
from coexec.placement.policies.side_by_side import side_by_side
from coexec.placement.problem import Division, Problem, Schedule, Shares
from tests.placement.made_up import problem

STEM_AND_BRANCHES = (("stem", "left"), ("stem", "right"), ("left", "join"), ("right", "join"))
HALVES = Shares(0, ((0, 32), (1, 32)))
WHOLE_US = 40.0


def network(share_us: float, *, latency: float = 0.0) -> Problem:
    """A stem, two equal branches and their join; half of any takes ``share_us``, read whole."""
    names = ("stem", "left", "right", "join")
    of = problem(dict.fromkeys(names, (WHOLE_US, WHOLE_US)), STEM_AND_BRANCHES, latency=latency)
    curve = ((0.0, 0.0), (0.5, share_us), (1.0, WHOLE_US))
    ways = {
        index: (Division(0, 64, (None,) * len(task.inputs), (curve, curve)),)
        for index, task in enumerate(of.tasks)
    }
    return replace(of, divisions=ways)


def in_halves(of: Problem) -> Timed:
    """All tasks divided."""
    return timed(of, Schedule((0,) * 4, tuple(range(4)), dict.fromkeys(range(4), HALVES)))


def test_branches_run_whole_and_what_is_before_and_behind_them_in_shares() -> None:
    """Shares of a branch and their exchange take longer than half of it."""
    of = network(25.0, latency=3.0)
    divided = in_halves(of)
    mixed = side_by_side(of, divided)
    assert set(mixed.schedule.shares) == {0, 3}
    assert mixed.schedule.units[1] != mixed.schedule.units[2]
    assert mixed.makespan_us < divided.makespan_us
    mixed.schedule.check(of)


def test_shares_are_kept_where_they_end_earlier() -> None:
    divided = in_halves(network(20.0))
    assert side_by_side(network(20.0), divided) is divided


def test_the_policy_finds_schedules_with_both() -> None:
    """Two stems in a row that divide well, branches that do not divide at all."""
    of = network(20.0, latency=3.0)
    of = replace(of, divisions={task: of.divisions[task] for task in (0, 3)})
    found = operator_split(of)
    assert set(found.shares) == {0, 3}
    assert found.units[1] != found.units[2]
    assert timed(of, found).makespan_us == pytest.approx(20 + 40 + 20 + 2 * 3, abs=3.1)


def test_overlaps_that_only_shares_needed_are_dropped() -> None:
    of = network(25.0, latency=3.0)
    wide = replace(HALVES, overlap=(2, 2))
    schedule = Schedule((0,) * 4, tuple(range(4)), dict.fromkeys(range(4), wide))
    mixed = side_by_side(of, timed(of, schedule))
    assert all(shares.overlap == (0, 0) for shares in mixed.schedule.shares.values())
