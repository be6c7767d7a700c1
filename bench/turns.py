"""One case: everybody prepares it, results are compared, then turns alternate (A B A B)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from bench.agreement import Results, dissenters, load_results, yardstick
from bench.case import SHORT_SECONDS, Case, Suite
from bench.contenders import SINGLE, Contender
from bench.protocol import PeerEnded, PeerFailed
from bench.statistics import Ratio, ratio, reduced

Observer = Callable[[str], None]
BUSY = 0.05
"""A turn is made again where others kept so much of a core busy, be it all of it for a moment:
processors that wait for each other take twice as long then, and more."""


class Asked(Protocol):
    """A worker, as far as a case needs it."""

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]: ...


class Workers(Protocol):
    """Where workers come from."""

    def worker(self, contender: Contender) -> Asked: ...

    def discard(self, contender: Contender) -> None: ...


@dataclass
class Row:
    """What became of a contender in a case: seconds of a call in each turn, or why not."""

    contender: Contender
    turns: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def seconds(self, statistic: str) -> float | None:
        """What counts of its turns."""
        return None if self.error or not self.turns else reduced(self.turns, statistic)


def run_case(
    suite: Suite,
    case: Case,
    contenders: Sequence[Contender],
    workers: Workers,
    turns: int,
    deadline: float = inf,
    observe: Observer | None = None,
) -> list[Row]:
    """Measure a case on everybody who takes part in it; failures are rows too.

    After ``deadline`` (``time.monotonic``) no turn begins that is among the suite's fewest.
    """
    rows = [Row(c) for c in contenders if c.takes(case.kind, case.spec)]
    tell = observe or (lambda _: None)
    with tempfile.TemporaryDirectory(prefix="coexec-bench-") as name:
        folder = Path(name)
        case = with_files(suite, case, folder)
        results = _prepare(rows, case, workers, folder, tell)
        _exclude(rows, results, suite)
        timed = replace(suite, repeats=0) if case.beside else suite
        _alternate(rows, timed, workers, (turns, deadline), tell)
    for row in rows:
        if suite.fresh:
            workers.discard(row.contender)
        elif not row.error:
            _ask(row, workers, {"do": "drop"})
    return rows


def with_files(suite: Suite, case: Case, folder: Path) -> Case:
    """The case with the paths of what its suite wrote for it."""
    if suite.files is None:
        return case
    return replace(case, spec={**case.spec, **suite.files(case, folder)})


def _prepare(
    rows: Sequence[Row], case: Case, workers: Workers, folder: Path, tell: Observer
) -> dict[str, Results]:
    """Everybody's results; nobody's are kept in a worker of another."""
    results: dict[str, Results] = {}
    for row in rows:
        tell(f"{row.contender.name} prepares")
        asked = {"kind": case.kind, "spec": dict(case.spec), "role": row.contender.role}
        facts = _ask(row, workers, {"do": "prepare", "case": asked})
        if facts is None:
            continue
        row.facts = facts
        path = folder / "results.npz"
        if _ask(row, workers, {"do": "outputs", "path": str(path)}) is not None:
            results[row.contender.name] = load_results(path)
            path.unlink()
    return results


def _exclude(rows: Sequence[Row], results: Mapping[str, Results], suite: Suite) -> None:
    """Peers come first: among equals, their result is the yardstick, not ours.

    Half precision is held against the same yardstick, with a tolerance of its own.
    """
    present = [row for row in rows if row.contender.name in results]
    ordered = sorted(present, key=lambda row: row.contender.ours)
    single = {
        row.contender.name: results[row.contender.name]
        for row in ordered
        if row.contender.precision == SINGLE
    }
    if not single:
        return
    best = yardstick(single, suite.tolerance)
    wrong = dissenters(results, best, suite.half_tolerance)
    wrong |= dissenters(single, best, suite.tolerance)
    for row in present:
        row.error = wrong.get(row.contender.name, "")


def _alternate(
    rows: Sequence[Row], suite: Suite, workers: Workers, until: tuple[int, float], tell: Observer
) -> None:
    """Everybody in order, again and again; the first turn warms up and does not count.

    ``until``: turns and deadline.
    """
    turns, deadline = until
    last, turn, repeats = turns, 0, suite.repeats
    while turn <= turns * suite.short:
        if turn > suite.fewest and time.monotonic() > deadline:
            return
        if turn > turns:
            if not _short(rows):
                return
            last = turns * suite.short
        tell(f"turn {turn} of {last}")
        found = _turn(rows, suite, workers)
        if turn and repeats and _share_of_others(found.values()) >= BUSY:
            repeats -= 1
            continue
        for number, answer in found.items() if turn else ():
            rows[number].turns.append(reduced(answer["calls"], suite.statistic))
        turn += 1


def _turn(rows: Sequence[Row], suite: Suite, workers: Workers) -> dict[int, dict[str, Any]]:
    """What everybody who has not failed answers, by number of the row."""
    found = {}
    for number, row in enumerate(rows):
        if row.error:
            continue
        time.sleep(suite.pause)
        answer = _ask(row, workers, {"do": "time", "seconds": suite.seconds})
        if answer is not None:
            row.facts |= answer["facts"]
            found[number] = answer
    return found


def _share_of_others(answers: Collection[Mapping[str, Any]]) -> float:
    """Cores that other processes kept busy during a turn."""
    passed = sum(answer["passed"] for answer in answers)
    return sum(answer["others"] for answer in answers) / passed if passed else 0.0


def _short(rows: Sequence[Row]) -> bool:
    """Whether calls of all who take part are short."""
    return all(median(row.turns) < SHORT_SECONDS for row in rows if row.turns)


def _ask(row: Row, workers: Workers, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer; a refusal is the row's error, and it is not asked again.

    Its worker is ended, unless others are in it, too, and it goes on.
    """
    try:
        return workers.worker(row.contender).ask({**request, "who": row.contender.name})
    except PeerFailed as failure:
        row.error = str(failure)
        if not row.contender.worker or isinstance(failure, PeerEnded):
            workers.discard(row.contender)
        return None


def best_peer(rows: Sequence[Row], statistic: str, precision: str = SINGLE) -> Row | None:
    """The fastest of the peers of a precision."""
    timed = [
        (seconds, i)
        for i, row in enumerate(rows)
        if not row.contender.ours and row.contender.precision == precision
        if (seconds := row.seconds(statistic)) is not None
    ]
    return rows[min(timed)[1]] if timed else None


def ratio_to(best: Row | None, row: Row, statistic: str) -> Ratio | None:
    """Our time over the best peer's; nothing for peers, failures and where there is no peer."""
    if best is None or not row.contender.ours or row.error or not row.turns:
        return None
    return ratio(row.turns, best.turns, statistic)
