"""Memory below buffers that lie in an arena: parts of it, and the arena of an earlier program."""

from __future__ import annotations

from coexec.base.pages import PAGE, page_aligned
from coexec.core.program import BOUNDARY, SCRATCH, BufferSpec, Program
from coexec.processors.reference.processor import ReferenceProcessor
from coexec.runtime.sharing import common_memory
from tests.queues import queues

ARENA = BufferSpec("arena", "one", 3 * PAGE, SCRATCH)
MADE = BufferSpec("t@one", "one", 16, BOUNDARY, "arena", PAGE)
READ = BufferSpec("t@two", "two", 16, BOUNDARY, "arena", PAGE)
PROGRAM = Program((), (), (ARENA, MADE, READ), (), (), ())


def test_buffers_in_an_arena_are_parts_of_its_memory() -> None:
    memory = common_memory(PROGRAM, queues("one", "two"), {})
    assert memory["arena"].nbytes == 3 * PAGE
    memory["arena"][PAGE : PAGE + 16] = range(16)
    for name in ("t@one", "t@two"):
        assert memory[name].tolist() == [*range(16)]


def test_an_arena_that_is_there_is_taken_where_it_is_large_enough() -> None:
    runner = ReferenceProcessor()
    large, small = (runner.adopt(page_aligned(pages * PAGE)) for pages in (4, 2))
    on = queues("one", "two")
    assert common_memory(PROGRAM, on, {"arena": large})["arena"] is large.over
    assert common_memory(PROGRAM, on, {"arena": small})["arena"].nbytes == 3 * PAGE
    apart = runner.alloc(4 * PAGE)  # nobody else can lie in there
    assert common_memory(PROGRAM, on, {"arena": apart})["arena"].nbytes == 3 * PAGE


def test_nothing_is_a_part_of_an_arena_where_a_processor_has_memory_of_its_own() -> None:
    on = queues("one", "two")
    on["two"].host_memory = False
    assert common_memory(PROGRAM, on, {}) == {}
