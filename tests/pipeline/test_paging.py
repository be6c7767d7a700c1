"""Activations that leave the device between the passes: the same bits in less memory."""

from __future__ import annotations

import gc
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import coexec
from coexec import zoo
from coexec.autodiff.losses import SoftmaxCrossEntropy
from coexec.autodiff.optimizers import SGD
from coexec.base.errors import DeviceMemoryError, ModelError, UsageError
from coexec.core.events import COPY, Trace
from coexec.core.pages import Page, PageFile, PageLink
from coexec.core.types import Array
from coexec.cost.model import ProcessorCosts
from coexec.cost.page_link import page_link
from coexec.cost.store import CostStore
from coexec.passes.page_activations import page_activations
from coexec.processors.find import open_processor
from coexec.processors.opencl import device
from coexec.processors.opencl.bound import Bound, BoundCopy, BoundMove, BoundPage
from coexec.processors.opencl.buffer import OpenCLBuffer
from coexec.processors.opencl.executable import ARENA, Label, PageStep, Slot
from coexec.report.memory import ACTIVATIONS, Usage, memory_over_time
from coexec.steps import pager
from coexec.steps.pager import Pager, unable
from tests.runtimes import DRIVERS, THOROUGH, open_opencl
from tests.synthetic import RATES

FAST = PageLink("host memory", 1e-5, 1e-5)
SLOW = PageLink("storage", 1e-1, 1e-1, 1000.0, 0.5, beside=False)
RNG = np.random.default_rng(0)
BESIDE = f"{THOROUGH[0]}?pages=beside"
"""Transfers in a queue of their own, as on devices that are no CPU."""
SMAPS = Path("/proc/self/smaps")
BATCH = 16
DATA = {"x": RNG.standard_normal((BATCH, 6, 100)).astype(np.float32)}
LABELS = RNG.integers(0, 4, BATCH)
IMAGES = {"x": RNG.standard_normal((32, 1, 28, 28)).astype(np.float32)}
DIGITS = RNG.integers(0, 10, 32)


def trainer(
    model: ir.Model | None = None, processor: str = THOROUGH[0], **options: Any
) -> coexec.Trainer:
    loaded = coexec.load(model or zoo.build("sensor_cnn"))
    how = SGD(0.01, momentum=0.9)
    return coexec.Trainer(loaded, SoftmaxCrossEntropy(), how, [processor], **options)


def linked(learner: coexec.Trainer, link: PageLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the learner's processor have a link of known speed, where every node takes 0.1 ms."""
    (first, *_) = learner.processors.values()
    monkeypatch.setitem(pager._PAGERS, first, Pager(link, lambda _call: 100.0))


def after(learner: coexec.Trainer, steps: int = 3) -> dict[str, Array]:
    for _ in range(steps):
        learner.step(DATA, LABELS)
    return learner.state()


def after_peak(learner: coexec.Trainer) -> int:
    after(learner, 1)
    return learner.peak_bytes


def fullest(learner: coexec.Trainer, trace: Trace) -> Usage:
    """The first moment of a traced step at which most memory is in use."""
    return max(memory_over_time(learner.program, trace), key=lambda usage: usage.nbytes)


def resident_bytes(memory: Array) -> int:
    """What of a mapped file is in this process's memory now."""
    start = memory.__array_interface__["data"][0]
    found = re.search(
        rf"^{start:08x}-.*?^Rss:\s*(\d+) kB", SMAPS.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return int(found[1]) * 1024


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("processor", [THOROUGH[0], BESIDE])
def test_paged_steps_give_the_same_bits_in_less_memory(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that is resumed goes on to the bit with other pages: they are scratch."""
    plain, paged = trainer(processor=processor), trainer(processor=processor, paging=1.0)
    linked(paged, FAST, monkeypatch)
    state = after(paged, 2)
    assert paged.peak_bytes < 0.7 * after_peak(plain)
    assert paged.program.page_bytes > 0.5 * plain.kept_activations[0]
    assert paged.kept_activations[0] < 0.5 * plain.kept_activations[0]
    resumed = trainer(processor=processor, paging=0.5)
    resumed.load_state(state, 2)
    assert_same(after(resumed, 1), after(plain, 2))


@pytest.mark.skipif(not SMAPS.exists(), reason="the system does not tell what is resident")
@pytest.mark.parametrize("beside", [False, True])
def test_what_is_in_the_file_of_pages_is_no_part_of_the_process(beside: bool) -> None:
    """A file of one page: a neighbour's first touch would bring the end of this one back."""
    nbytes = 1 << 20
    processor = open_opencl(BESIDE if beside else THOROUGH[0])
    pages, tensor = processor.alloc_pages(nbytes), processor.alloc(nbytes)
    processor.wait(processor.copy(tensor, RNG.integers(0, 255, nbytes, np.uint8), ()))
    assert pages.file is not None
    assert resident_bytes(pages.memory) == 0
    if beside:
        step = PageStep("out", 0, nbytes, Slot(ARENA), Label("out"))
        out: Bound = BoundPage(step, pages, tensor.memory, processor.queue)
    else:
        assert isinstance(pages.buffer, OpenCLBuffer)
        out = BoundMove(BoundCopy(pages.buffer.memory, tensor.memory, nbytes), pages, 0, nbytes)
    processor.block(out.enqueue(processor.queue))
    until = time.monotonic() + 20
    while resident_bytes(pages.memory) and time.monotonic() < until:
        time.sleep(0.001)  # behind the transfer, a thread of the driver lets go
    assert resident_bytes(pages.memory) == 0
    found = np.empty(nbytes, np.uint8)
    processor.wait(processor.copy(found, tensor, ()))
    np.testing.assert_array_equal(pages.memory, found)


def test_paging_goes_with_other_techniques(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe: dict[str, Any] = {"updates": "early", "activations": "mask", "micro_batches": 2}
    plain = trainer(**recipe)
    paged = trainer(processor=BESIDE, paging=1.0, **recipe)
    linked(paged, FAST, monkeypatch)
    assert_same(after(paged), after(plain))
    assert paged.peak_bytes < plain.peak_bytes
    assert paged.program.page_bytes


@pytest.mark.parametrize("processor", DRIVERS)
def test_pooling_and_products_find_their_operands_again(
    processor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views of what was paged (Flatten) are views of the copy."""
    model = zoo.build("lenet5", batch=len(DIGITS))
    learners = [trainer(model, processor, paging=share) for share in (0.0, 1.0)]
    linked(learners[1], FAST, monkeypatch)
    for _ in range(2):
        losses = [learner.step(IMAGES, DIGITS) for learner in learners]
        assert losses[0] == losses[1]
    assert_same(learners[1].state(), learners[0].state())
    assert learners[1].program.page_bytes


def test_a_trace_shows_transfers_beside_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trainer(processor=BESIDE, paging=0.6)
    linked(learner, FAST, monkeypatch)
    after(learner, 1)
    trace = Trace()
    learner.step(DATA, LABELS, trace)
    moved = [e for e in trace.leaves() if e.operator in ("coexec::PageOut", "coexec::PageIn")]
    assert {event.kind for event in moved} == {COPY}
    assert sum(event.bytes for event in moved) == 2 * learner.program.page_bytes
    assert not [e for e in trace.leaves() if e.operator == "coexec::PageWait"]
    outs = {e.source: e for e in moved if e.operator == "coexec::PageOut"}
    backs = {e.source: e for e in moved if e.operator == "coexec::PageIn"}
    assert outs.keys() == backs.keys()
    assert all(outs[layer].end_ns <= backs[layer].start_ns for layer in outs)
    most = fullest(learner, trace)
    whole = trainer()
    after(whole, 1)
    plain = Trace()
    whole.step(DATA, LABELS, plain)
    before = fullest(whole, plain)
    assert most.kinds[ACTIVATIONS] < before.kinds[ACTIVATIONS]


def test_a_budget_uses_a_fast_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free transfers beat any repetition, and steps go on to the bit."""
    plain = trainer()
    learner = trainer(memory=int(0.7 * after_peak(plain)))
    linked(learner, FAST, monkeypatch)
    assert_same(after(learner, 1), plain.state())
    plan = learner.memory_plan
    assert plan is not None
    assert learner.peak_bytes == plan.peak_bytes <= plan.budget_bytes
    assert "paging" in {use.technique for use in plan.used}
    assert all(use.exact for use in plan.used)


def test_a_budget_refuses_a_slow_link_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = trainer()
    learner.set_memory(int(0.8 * learner.planned_bytes(DATA)))
    linked(learner, SLOW, monkeypatch)
    plan = learner.plan_memory(DATA)
    assert plan is not None
    assert "paging" not in {use.technique for use in plan.used}
    assert "the way to storage and back is too slow (0.01 and 0.01 GB/s)" in plan.refused["paging"]


def test_without_room_for_pages_a_budget_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pages").write_text("no folder")
    monkeypatch.setattr(device, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(pager, "_PAGERS", {})
    monkeypatch.setattr(CostStore, "get", lambda _store, _key: None)
    assert "no room for" in unable(open_processor(THOROUGH[0]))


def test_a_measured_link_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path))
    processor = open_processor(THOROUGH[0])
    stores = [CostStore(processor.describe(), "test") for _ in range(2)]
    link = page_link(ProcessorCosts(processor, RATES, stores[0]))
    assert link.out_us_per_byte > 0 < link.in_us_per_byte
    assert link.load == 1 / processor.describe().compute_units
    assert page_link(ProcessorCosts(processor, RATES, stores[0])) == link
    kept = CostStore(processor.describe(), "test")
    assert kept.entries.keys() == stores[0].entries.keys() != stores[1].entries.keys()
    assert not list((tmp_path / "pages").iterdir())  # files of pages have no names


def test_processors_that_move_nothing_and_shares_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match=r"reference does not move tensors .* OpenCL processor"):
        trainer(processor="reference", paging=0.5).step(DATA, LABELS)
    with pytest.raises(UsageError, match="a share of the activations, from 0 to 1: 50"):
        trainer(paging=50)


def test_pages_of_another_step_are_refused() -> None:
    learner = trainer()
    graph = learner.build_step(DATA).model.graph
    with pytest.raises(ModelError, match=r"no nonsense, nowhere, .* plan the memory again"):
        page_activations(graph, [Page("nonsense", "nowhere", "never", 0.0)])


def test_a_file_of_pages_has_its_size_at_once_and_no_name(tmp_path: Path) -> None:
    file = PageFile(1 << 20, tmp_path / "pages")
    file.memory[:] = np.arange(1 << 20, dtype=np.uint8)
    file.to_storage()
    np.testing.assert_array_equal(file.memory, np.arange(1 << 20, dtype=np.uint8))
    assert not list((tmp_path / "pages").iterdir())
    with pytest.raises(DeviceMemoryError, match=r"no room for .* of pages \(.*COEXEC_CACHE_DIR"):
        PageFile(1 << 60, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceMemoryError, match="no room for"):
        PageFile(16, tmp_path / "file")
    del file
    gc.collect()
