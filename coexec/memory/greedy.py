"""What to recompute in a step of any shape: the best bytes for the time first, then undone again.

Greedy descent on the bytes above the budget: of the activations that wait while most memory is in
use, recompute the one that takes most of the excess away for the least time. Where that ends, what
leads to a repetition is let go behind it, and made once more for others. What proves needless at
the end is kept again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

from coexec.memory.lifetimes import Usage, usage
from coexec.memory.live_bytes import LiveBytes, live_bytes
from coexec.memory.problem import Choice, StepProblem

TRIED = 6
"""Candidates of the best rough score that are tried on paper in each round."""
ESCAPES, MOVES = 4, 24
"""So often a descent that is stuck tries so many pairs of moves."""
LEVEL = 0.94
"""Of the peak: so low it is brought at a time."""
PEAKS = 3
"""Events above the budget whose waiting activations are candidates: the highest, first and last."""


@dataclass
class _State:
    """Candidates dropped so far and what that means."""

    problem: StepProblem
    dropped: frozenset[int]
    alone: frozenset[int] = frozenset()
    recomputed: frozenset[int] = field(init=False)
    bytes: LiveBytes = field(init=False)
    extra_us: float = field(init=False)

    def __post_init__(self) -> None:
        self.recomputed = self.problem.recomputed(self.dropped)
        self.bytes = live_bytes(self.problem, self.recomputed, self.alone)
        self.extra_us = self.bytes.extra_us

    @cached_property
    def used(self) -> Usage:
        """What uses the bytes: most states are only tried, and nobody asks."""
        return usage(self.problem, self.recomputed, self.alone)

    def with_dropped(self, dropped: frozenset[int]) -> _State:
        """Other candidates dropped."""
        return _State(self.problem, dropped, self.alone)

    def with_alone(self, alone: frozenset[int]) -> _State:
        """Others of them made again alone."""
        return _State(self.problem, self.dropped, alone)

    def choice(self) -> Choice:
        alone = self.alone & self.recomputed
        return Choice(self.recomputed, self.bytes.peak, self.extra_us, alone, self.dropped)


def choose(
    problem: StepProblem,
    budget: int,
    start: Collection[int] = (),
    alone: Collection[int] = (),
) -> Choice:
    """What to recompute so that the step fits ``budget`` bytes, from candidates dropped at first.

    If it cannot be made to fit that way, the choice of the lowest peak found.
    """
    state = _State(problem, frozenset(start), frozenset(alone))
    level, escapes = _below(state, budget), ESCAPES
    while state.bytes.peak > budget:
        better = _step(state, level) or _apart(state, level)
        if better is None and escapes:
            escapes -= 1
            better = _escape(state, level)
        if better is None:
            break
        state = better
        if state.bytes.peak <= level:
            level = _below(state, budget)
    return _undone(state, max(budget, state.bytes.peak)).choice()


def _below(state: _State, budget: int) -> int:
    """The next level to get below: far ones would count events that cannot get there at all."""
    return max(budget, int(state.bytes.peak * LEVEL))


def _step(state: _State, budget: int) -> _State | None:
    """One more candidate dropped: the one that takes most excess away for its time."""
    more = (state.dropped | {root} for root in _promising(state, budget))
    return _best_move(state, budget, map(state.with_dropped, more))


def _apart(state: _State, budget: int) -> _State | None:
    """One more candidate made alone, so that what leads to it is not held for others meanwhile."""
    more = (state.alone | {root} for root in _led_to(state))
    return _best_move(state, budget, map(state.with_alone, more))


def _led_to(state: _State) -> list[int]:
    """Candidates that are made again of repetitions which are there at the peak."""
    problem, used = state.problem, state.used
    pending = [
        used.origins[place]
        for place in used.live_at(used.peak_event)
        if place >= len(problem.tensors)
    ]
    found: dict[int, None] = {}
    while pending:
        for index in problem.readers.get(pending.pop(), ()):
            for tensor in state.recomputed.intersection(problem.nodes[index].writes):
                if tensor not in state.dropped:
                    pending.append(tensor)
                elif tensor not in state.alone:
                    found[tensor] = None
    return [*found][:TRIED]


def _escape(state: _State, budget: int) -> _State | None:
    """Two moves at once, where no single one helps."""
    pairs = combinations(_promising(state, budget), 2)
    moves = [*(state.dropped | set(pair) for pair in pairs), *_kept_again(state)]
    return _best_move(state, budget, map(state.with_dropped, moves[:MOVES]))


def _best_move(state: _State, budget: int, moves: Iterable[_State]) -> _State | None:
    before = state.bytes.excess(budget)
    best: tuple[float, _State] | None = None
    for trial in moves:
        gained = before - trial.bytes.excess(budget)
        if gained <= 0:
            continue
        score = gained / max(trial.extra_us - state.extra_us, 1.0)
        if best is None or score > best[0]:
            best = (score, trial)
    return None if best is None else best[1]


def _kept_again(state: _State) -> Iterator[frozenset[int]]:
    """Without one of those whose repetitions are there at the peak, alone or for another one."""
    used, own = state.used, len(state.problem.tensors)
    live = used.live_at(used.peak_event)
    copies = dict.fromkeys(used.origins[root] for root in live if root >= own)
    again = [root for root in copies if root in state.dropped][:TRIED]
    for root in again:
        yield state.dropped - {root}
        for other in state.problem.candidates:
            if other not in state.dropped and other in live:
                yield (state.dropped - {root}) | {other}


def _promising(state: _State, budget: int) -> list[int]:
    """Candidates that wait at events above the budget, by bytes for the time of their own node."""
    problem = state.problem
    scores: dict[int, float] = {}
    for event in _high_events(state.used, budget):
        for root in _waiting(state, event):
            cost = problem.nodes[problem.producer[root]].cost_us
            scores[root] = problem.nbytes[root] / max(cost, 1.0)
    return sorted(scores, key=lambda root: -scores[root])[:TRIED]


def _high_events(used: Usage, budget: int) -> Iterable[int]:
    above = [index for index, live in enumerate(used.live) if live > budget]
    return dict.fromkeys([used.peak_event, *above[:1], *above[-1:]][:PEAKS])


def _waiting(state: _State, event: int) -> Iterator[int]:
    """Kept candidates that are there at an event, which does not use them."""
    used = state.used
    busy = {*used.events[event].reads, *used.events[event].writes}
    for root in state.problem.candidates:
        if root in state.dropped or root in busy:
            continue
        born = state.problem.producer[root]
        if used.events[event].node > born and used.last.get(root, -1) > event:
            yield root


def _undone(state: _State, budget: int) -> _State:
    """Keep again, most expensive first, what need not be recomputed to stay within ``budget``.

    Nor need anything be made alone that fits without.
    """
    problem = state.problem

    def own_cost(root: int) -> float:
        return problem.nodes[problem.producer[root]].cost_us

    alone = sorted(state.alone & state.dropped, key=own_cost, reverse=True)
    for root in alone:
        trial = state.with_alone(state.alone - {root})
        if trial.bytes.peak <= budget and trial.extra_us <= state.extra_us:
            state = trial
    for root in sorted(state.dropped, key=own_cost, reverse=True):
        trial = state.with_dropped(state.dropped - {root})
        if trial.bytes.peak <= budget and trial.extra_us <= state.extra_us:
            state = trial
    return state
