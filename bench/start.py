"""From launching a process to the end of its first step: with full caches, and with empty ones."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bench.case import Case, Suite
from bench.contenders import SINGLE
from bench.pool import Pool
from bench.protocol import PeerFailed
from bench.turns import Observer, Row, with_files

CACHES = ("COEXEC_CACHE_DIR", "POCL_CACHE_DIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")
COLD, WARM = "start_cold_s", "start_warm_s"


def start_times(
    suite: Suite, case: Case, rows: Sequence[Row], pool: Pool, cold: bool, tell: Observer
) -> None:
    """Adds the times to the facts of our rows in single precision; a failure says why there.

    Rows were measured before, so the caches of this user are warm; Python's own, which an
    installation fills, are filled here by a first start. ``cold``: with empty ones of kernels too.
    """
    with tempfile.TemporaryDirectory(prefix="coexec-bench-") as name:
        filled = with_files(suite, case, Path(name))
        installed = _with(pool, bytecode(Path(name) / "bytecode"))
        for row in rows:
            if not row.contender.ours or row.contender.precision != SINGLE:
                continue
            pool.discard(row.contender)
            tell(f"{row.contender.name} {WARM}")
            for _ in range(2):
                _add_start(row, filled, installed, WARM)
            if cold:
                tell(f"{row.contender.name} {COLD}")
                caches = Path(tempfile.mkdtemp(dir=name))
                empty = {variable: str(caches / variable.lower()) for variable in CACHES}
                _add_start(row, filled, _with(installed, empty), COLD)


def bytecode(folder: Path) -> dict[str, str]:
    """Keeps Python's compiled modules in a folder, whatever this shell says about keeping them."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}


def _with(pool: Pool, environment: Mapping[str, str]) -> Pool:
    """A pool of other workers, which see more of the environment."""
    return replace(pool, environment={**pool.environment, **environment}, _workers={})


def _add_start(row: Row, case: Case, pool: Pool, fact: str) -> None:
    request: Mapping[str, object] = {
        "do": "prepare",
        "case": {"kind": case.kind, "spec": dict(case.spec)},
    }
    pool.discard(row.contender)
    try:
        row.facts[fact] = pool.worker(row.contender).ask(request)["first_step_s"]
    except PeerFailed as failure:
        row.facts["start_error"] = str(failure)
    finally:
        pool.discard(row.contender)
