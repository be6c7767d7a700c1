"""What is made in the background is there as soon as it is made, and failures are told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from coexec.planning.workshop import Workshop


@pytest.mark.parametrize("at_once", [True, False])
def test_what_was_made_before_a_failure_is_kept(at_once: bool) -> None:
    def job() -> Iterator[int]:
        yield 1
        raise RuntimeError("no second one")

    workshop: Workshop[int] = Workshop(at_once=at_once)
    assert not workshop.busy
    workshop.start(job)
    assert workshop.busy
    made, error = workshop.collect()
    assert made == [1]
    assert str(error) == "no second one"
    assert not workshop.busy


def test_who_does_not_wait_gets_what_is_there() -> None:
    first, on = threading.Event(), threading.Event()

    def job() -> Iterator[int]:
        yield 1
        first.set()
        assert on.wait(30)
        yield 2

    workshop: Workshop[int] = Workshop(at_once=False)
    workshop.start(job)
    assert first.wait(30)
    assert not workshop.done
    made, error = workshop.collect(wait=False)
    on.set()
    assert (made, error) == ([1], None)
