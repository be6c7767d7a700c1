"""Fixtures shared by all tests, and what the run says at its end."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest

from coexec.base.knobs import BUILD_APART, RUN_SECONDS, SEARCH_APART
from tests.quick_builds import built_to_run

# A process more for each test would take its time.
os.environ.setdefault(BUILD_APART.name, "0")
os.environ.setdefault(SEARCH_APART.name, "0")
os.environ.setdefault(RUN_SECONDS.name, "0")

SUMMARY = "summary"
"""Name of a test's recorded property that is printed at the end of the run."""


@pytest.fixture(scope="session", autouse=True)
def alone() -> Iterator[None]:
    """Whatever else computes meanwhile, plans that tests run are chosen and kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("coexec.base.others.Others.look", lambda _others: 0.0)
        yield


@pytest.fixture(autouse=True, scope="module")
def quickly_built(request: pytest.FixtureRequest) -> Iterator[None]:
    """Programs are built to be run, and not to be kept, but where the cache itself is tested."""
    if "unit" in request.path.parts:
        yield
        return
    with built_to_run():
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: tests are deterministic."""
    return np.random.default_rng(1234)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: jobs in the background of a shell script begin without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is not None:  # else it was set outside of Python
        signal.signal(signal.SIGINT, before)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Keep all tests that were collected out of each search for garbage: they stay to the end."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print recorded summaries; under pytest-xdist the tests themselves have no terminal."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "call":
                continue
            for name, text in report.user_properties:
                if name == SUMMARY:
                    terminalreporter.write_line(text)
