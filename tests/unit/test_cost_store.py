"""Measured times on disk while several processes add to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coexec.core.processor import ProcessorSpec
from coexec.cost.store import CostStore
from tests.pipeline.command import finish

SPEC = ProcessorSpec("made up", "cpu", "none")
ROUNDS = 25
SAVING = f"""
import sys
import time
from pathlib import Path
from coexec.core.processor import ProcessorSpec
from coexec.cost.distribution import Distribution
from coexec.cost.store import CostStore, Entry

folder, name, other = Path(sys.argv[1]), *sys.argv[2:]
stores = [CostStore(ProcessorSpec("made up", "cpu", "none"), "1", folder) for _ in range({ROUNDS})]
(folder / name).touch()
while not (folder / other).exists():
    time.sleep(0.001)
for number, store in enumerate(stores):
    store.put(f"{{name}} {{number}}", Entry(Distribution.exactly(1.0)))
    store.save()
"""


def test_processes_that_save_at_one_instant_lose_no_time(tmp_path: Path) -> None:
    def started(*names: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SAVING, str(tmp_path), *names],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    both = [started("first", "second"), started("second", "first")]
    for done in map(finish, both):
        assert done.status == 0, done.err
    wanted = {f"{name} {number}" for name in ("first", "second") for number in range(ROUNDS)}
    assert set(CostStore(SPEC, "1", tmp_path).entries) == wanted
