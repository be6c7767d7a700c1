"""What drivers remark on programs is no word for people, even if a command is over meanwhile."""

from __future__ import annotations

import subprocess
import sys

LATE = """
import atexit, sys, warnings
import pyopencl
from coexec.cli import main

def compile_on():
    warnings.warn("1 warning generated", pyopencl.CompilerWarning)

atexit.register(compile_on)
sys.argv = ["coexec", "devices"]
main()
"""


def test_a_program_that_is_built_after_the_command_is_over_is_not_remarked_on() -> None:
    """As by a thread that prepares another plan, when training ends."""
    done = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout
    assert "CompilerWarning" not in done.stderr
