"""Kernels that are run once are built to be run, and not to be kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.quick_builds import built_to_run


@pytest.fixture(autouse=True, scope="module")
def quickly_built() -> Iterator[None]:
    """Of PoCL: the other runtimes have the binary as soon as they have built the program."""
    with built_to_run():
        yield
