"""Ctrl-C in a terminal: it ends this process, in its own way, and not what works for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coexec.base.interrupts import interrupts_held
from coexec.processors.opencl.build_apart import build_apart
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.programs import ProgramCache
from coexec.study.spread import Spread
from tests.pipeline.command import python
from tests.runtimes import THOROUGH, open_opencl

pytestmark = [
    pytest.mark.skipif(
        not hasattr(signal, "pthread_sigmask"), reason="the system has no signal masks"
    ),
    pytest.mark.usefixtures("ctrl_c"),
]
SLEEPER = "import time; print('ready', flush=True); time.sleep(0.3); print('done', flush=True)"


def blocked(_task: int = 0) -> bool:
    """Whether the calling thread hears no Ctrl-C."""
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_threads_begun_meanwhile_do_not_hear_it_and_the_caller_does_again() -> None:
    with interrupts_held():
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(blocked).result()
        assert blocked()
    assert not blocked()


def test_the_caller_hears_it_at_the_end() -> None:
    passed = []

    def interrupted() -> None:
        with interrupts_held():
            signal.raise_signal(signal.SIGINT)
            passed.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert passed


def test_processes_begun_meanwhile_do_not_hear_it() -> None:
    command = [sys.executable, "-c", SLEEPER]
    with interrupts_held():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "done\n"
    assert process.returncode == 0


def test_programs_are_compiled_on_threads_that_do_not_hear_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PoCL's linker is a process: killed by Ctrl-C, it makes PoCL abort this one."""
    heard: list[bool] = []
    monkeypatch.setattr(ProgramCache, "_build", lambda _self, _source: heard.append(not blocked()))
    device = open_opencl(THOROUGH[0])
    programs = ProgramCache(device.context, device.device, apart=False)
    programs.build((ProgramSource("a", "1"), ProgramSource("b", "2")))
    assert heard == [False, False]


THREADS = """
import signal, sys
from pathlib import Path
from coexec.processors.find import open_processor

def tasks():
    return {task.name for task in Path("/proc/self/task").iterdir()}

before = tasks()
try:
    open_processor(sys.argv[1])
except Exception as error:
    sys.exit(f"absent: {error}")
for task in tasks() - before:
    lines = Path(f"/proc/self/task/{task}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigBlk"))
    print(int(mask, 16) >> signal.SIGINT - 1 & 1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are told by Linux")
@pytest.mark.parametrize("spec", ["opencl:pocl", "opencl:pocl?cores=1"])
def test_threads_of_pocl_which_link_kernels_do_not_hear_it(spec: str) -> None:
    done = python(THREADS, [spec])
    if "absent" in done.err:
        pytest.skip(done.err)
    assert set(done.out.split()) == {"1"}, done


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="needs Dask")
def test_workers_of_a_study_do_not_hear_it() -> None:
    assert [result for _, result in Spread(1).map(blocked, [1])] == [True]


WORKER = """#!/bin/sh
ps -o pgid= -p $$ > "$0.group"
echo built
"""


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_the_process_that_compiles_is_out_of_the_terminals_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text(WORKER)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    assert build_apart(THOROUGH[0], ())
    assert int((tmp_path / "python.group").read_text()) != os.getpgrp()


IMPORTS = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "coexec.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from coexec.cli import main
"""


def test_a_command_that_is_interrupted_while_it_loads_says_so() -> None:
    done = python(IMPORTS)
    assert (done.status, done.out, done.err) == (130, "", "interrupted\n")


LEAVES = """
import sys
import time

import pyopencl as cl

from coexec.cli import app, main
from coexec.processors.opencl.discover import choose_device

SOURCE = (
    "__kernel void work(__global float *x) {"
    "  float sum = x[0];"
    "  for (int i = 0; i < 30000000; ++i) sum = sum * 0.999f + x[1];"
    "  x[0] = sum; }"
)

class Slow:
    def __del__(self):
        time.sleep(0.5)

def interrupted():
    _, device = choose_device(sys.argv[1])
    context = cl.Context([device])
    queue = cl.CommandQueue(context)
    buffer = cl.Buffer(context, cl.mem_flags.READ_WRITE, 8)
    kernel = cl.Program(context, SOURCE).build(cache_dir=False).work
    event = kernel(queue, (1,), (1,), buffer)
    queue.flush()
    event.set_callback(cl.command_execution_status.COMPLETE, lambda status: None)
    sys.modules["slow"] = Slow()
    print("told")
    sys.exit(130)

app.main = interrupted
main()
"""


@pytest.mark.parametrize("spec", THOROUGH)
def test_what_a_driver_tells_after_ctrl_c_does_not_abort_the_process(spec: str) -> None:
    done = python(LEAVES, [spec])
    assert (done.status, done.out) == (130, "told\n"), done


WITH_EXIT = """
import atexit
import sys

from coexec.cli import app, main

def interrupted():
    sys.exit(130)

atexit.register(print, "removed")
app.main = interrupted
main()
"""


def test_what_is_to_be_done_at_the_end_is_done_after_ctrl_c_too() -> None:
    done = python(WITH_EXIT)
    assert (done.status, done.out, done.err) == (130, "removed\n", "")


BEFORE_TYPER = """
import sys
from unittest import mock

from coexec.cli import app, main

sys.argv = ["coexec", "zoo"]
with mock.patch("typer.main.get_command", side_effect=KeyboardInterrupt):
    main()
"""


def test_a_command_that_is_interrupted_before_it_begins_says_so() -> None:
    done = python(BEFORE_TYPER)
    assert (done.status, done.out, done.err) == (130, "", "interrupted\n")
