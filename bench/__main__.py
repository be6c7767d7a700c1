"""``python -m bench``: measure suites beside peers and write the results to a file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench import contenders, environment, record
from bench.budget import Budget
from bench.case import Suite
from bench.machine import machine_record
from bench.pool import Pool, Where
from bench.protocol import ROOT
from bench.record import Record, RecordError
from bench.rounds import Round, round_of
from bench.run import Choice, Run, describe, measure_limits
from bench.show import Progress, show_summary, show_targets
from bench.suites import SUITES
from coexec.base.errors import SaveError
from coexec.processors.find import list_processors

RESULTS = ROOT / "bench" / "results"
EXAMPLE = """examples:
  python -m bench all                                 # all suites, as far as 15 minutes go
  python -m bench conv --quick                        # a few cases of one suite
  python -m bench train --filter LeNet --peers torch --runtime intel
  python -m bench coexec --peers "" --minutes 20      # and, later, what that left out:
  python -m bench coexec --peers "" --minutes 20 --resume
  python -m bench.page bench/results/X.json --out docs/benchmarks.md
"""


class BenchError(Exception):
    """A wrong command line; the message says what would be right."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument(
        "suites",
        nargs="+",
        metavar="SUITE",
        help=f"all (but recurrent, coexec and planning), {', '.join(SUITES)}",
    )
    found.add_argument("--quick", action="store_true", help="a few cases of each suite")
    found.add_argument("--filter", default="", help="only cases whose name contains this")
    found.add_argument("--peers", default=",".join(contenders.LIBRARIES))
    found.add_argument("--runtime", default="", help="pocl,intel; all that there are by default")
    found.add_argument("--minutes", type=float, default=14.0, help="after these no case begins")
    found.add_argument(
        "--resume", action="store_true", help="only what the last run of these suites left out"
    )
    found.add_argument("--turns", type=int, default=0, help="turns that count")
    found.add_argument("--threads", type=int, default=os.cpu_count())
    found.add_argument("--cold", action="store_true", help="start-up with empty caches too")
    found.add_argument("--env", type=Path, help="environment of the peers, used as it is")
    found.add_argument(
        "--out", type=Path, help="file that gets the results (bench/results/MACHINE.json)"
    )
    found.add_argument("--json", action="store_true", help="results as JSON on stdout")
    return found


def chosen_suites(names: Sequence[str]) -> list[str]:
    """Known suites in their order.

    Raises:
        BenchError: one is not known.
    """
    unknown = [name for name in names if name not in (*SUITES, "all")]
    if unknown:
        raise BenchError(f"no suite {', '.join(unknown)}; there are: all, {', '.join(SUITES)}")
    everything = "all" in names
    return [n for n, suite in SUITES.items() if n in names or (everything and not suite.alone)]


def chosen_libraries(text: str) -> list[str]:
    """Libraries named in ``--peers``; none for an empty text.

    Raises:
        BenchError: one is not known.
    """
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in contenders.LIBRARIES]
    if unknown:
        known = ", ".join(contenders.LIBRARIES)
        raise BenchError(f"no peer {', '.join(unknown)}; there are: {known}")
    return names


def chosen_runtimes(text: str, available: Sequence[str]) -> list[str]:
    """Processors named in ``--runtime``, all but the checking interpreter by default.

    Raises:
        BenchError: one is not there, or there is none at all.
    """
    usable = [name for name in available if name != "opencl:oclgrind"]
    names = [f"opencl:{name}" for name in text.split(",") if name] or usable
    absent = [name for name in names if name not in usable]
    if absent or not names:
        known = ", ".join(name.removeprefix("opencl:") for name in usable) or "none"
        missing = ", ".join(name.removeprefix("opencl:") for name in absent)
        raise BenchError(f"no OpenCL runtime {missing}; there are: {known}")
    return names


def opencl_processors() -> list[str]:
    """Every OpenCL processor of this machine."""
    return [c.name for c in list_processors() if c.spec and c.name.startswith("opencl:")]


def peers_python(env: Path | None, libraries: Sequence[str], notes: Console) -> str:
    """The interpreter that has the peers: of ``--env``, or of the bench's own environment.

    Raises:
        BenchError: the folder named has none.
    """
    if env is not None:
        if not environment.python_of(env).exists():
            raise BenchError(f"{env} is no Python environment")
        return str(environment.python_of(env).absolute())
    if not libraries:
        return sys.executable
    folder = environment.default()
    for failure in environment.install(folder, notes.print):
        notes.print(f"not installed: {failure}")
    return str(environment.python_of(folder))


def measure(arguments: argparse.Namespace, notes: Console) -> Record:
    """Run what the command line asks for; results so far are shown and saved as they come."""
    suites = [SUITES[name] for name in chosen_suites(arguments.suites)]
    libraries = chosen_libraries(arguments.peers)
    runtimes = chosen_runtimes(arguments.runtime, opencl_processors())
    choice = Choice(arguments.quick, arguments.filter, arguments.turns, arguments.cold)
    if not any(choice.cases(suite) for suite in suites):
        raise BenchError(f"no case has {arguments.filter!r} in its name")
    where = Where.of(peers_python(arguments.env, libraries, notes), arguments.threads)
    machine = machine_record(where.threads)
    file = Results(path_of(arguments, machine), machine)
    if arguments.resume:
        choice = replace(choice, rounds=file.rounds(suites))
    chosen = {suite.name: (suite, choice.cases(suite)) for suite in suites}
    known = [
        *contenders.ours(runtimes),
        *contenders.peers(libraries, runtimes),
        *contenders.together(runtimes),
        *contenders.on_both_cores(runtimes),
        *contenders.planners(),
    ]
    cases = [case for _, of_suite in chosen.values() for case in of_suite]
    everybody = [c for c in known if any(c.takes(case.kind, case.spec) for case in cases)]
    with tempfile.NamedTemporaryFile(suffix=".log", delete=False) as log:
        pool = Pool(where, Path(log.name))
    budget = Budget.of(60 * arguments.minutes, chosen)
    progress = Progress(notes, len(cases), machine["limits"])
    run = Run(machine, everybody, choice, pool, budget, progress, file.keep)
    try:
        with progress:
            progress.tell("who takes part")
            describe(machine, everybody, pool)
            if any(suite.roof for suite in suites):
                measure_limits(machine, contenders.ours(runtimes), pool, progress.tell)
            for suite in suites:
                pool.enter(suite.environment)
                found = run.suite(suite)
                # What was gone on with is shown whole.
                if arguments.resume:
                    found = file.record["suites"].get(suite.name, found)
                show_summary(notes, suite.name, found["summary"])
                show_targets(notes, suite.name, found)
    finally:
        pool.close()
        notes.print(f"what peers printed: {log.name}")
        notes.print(f"results: {file.path}")
    return file.record


class Results:
    """The file of a run: it holds what is measured so far, over what it held before."""

    def __init__(self, path: Path, machine: Record) -> None:
        self.path, self.machine = path, machine
        self._old = record.read(path) if path.exists() else None
        self.record = record.merged(self._old, machine, {})

    def rounds(self, suites: Sequence[Suite]) -> Mapping[str, Round]:
        """The last round of each suite, as the file has it."""
        kept, now = self.record["suites"], record.now()
        return {suite.name: round_of(kept.get(suite.name), now) for suite in suites}

    def keep(self, suite: str, found: Record) -> None:
        """Put the suite's record so far into the file, whole or not at all."""
        self.record = record.merged(self.record, self.machine, {suite: found})
        record.write(self.path, self.record)


def path_of(arguments: argparse.Namespace, machine: Record) -> Path:
    """The machine's file; for a part of the cases one of its own that git does not keep."""
    if arguments.out is not None:
        return Path(arguments.out)
    name = record.slug(f"{machine['cpu']} {machine['threads']} threads")
    part = arguments.quick or arguments.filter
    return RESULTS / (f"{name}.part.json" if part else f"{name}.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line that says what is wrong."""
    given = list(sys.argv[1:] if argv is None else argv)
    notes = Console(stderr=True, width=130)
    try:
        arguments = parser().parse_args(given)
        result = measure(arguments, notes)
    except (BenchError, RecordError, SaveError) as error:
        notes.print(f"error: {error}", markup=False, highlight=False)
        return 2
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
