"""Simulation: plans of a model on a phone that is not here, run in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import onnx_ir as ir

from coexec.base.errors import CoexecError, MemoryBudgetError, ProcessorError, UsageError
from coexec.base.names import known_names
from coexec.base.units import bytes_text
from coexec.budget.amounts import AUTO as ALL_FREE
from coexec.budget.amounts import budget_bytes
from coexec.budget.settings import MemoryPlan
from coexec.core.events import Trace
from coexec.core.machine_file import is_machine
from coexec.core.plan import Plan
from coexec.core.processor import Processor
from coexec.core.program import Program
from coexec.core.soc import Soc
from coexec.core.soc_file import find_soc, read_soc
from coexec.core.soc_of_machine import read_desk
from coexec.core.types import Array
from coexec.placement.policies.table import ALL, AUTO, BATCH_PARALLEL, NAMES, POLICIES
from coexec.planning.planner import Planning, PlanOptions, plan_inference, plan_training
from coexec.planning.verification import verify
from coexec.processors.simulated.footprint import largest_tensors
from coexec.processors.simulated.options import CHOICES, NONE, SimulatedOptions
from coexec.processors.simulated.phone import Phone
from coexec.processors.simulated.pricing import Pricing
from coexec.processors.simulated.processor import SimulatedProcessor
from coexec.processors.simulated.tape import Tape
from coexec.profile import record_of_trace
from coexec.repetition import Sample, Step, busy_us, repeat
from coexec.report.record import ProfileRecord
from coexec.runtime.mode import DEFAULT, ExecutionMode
from coexec.session import Session
from coexec.simulation.condition import condition_named
from coexec.simulation.energy import energy_between
from coexec.steps.builder import Recipe
from coexec.training.trainer import Trainer

SINGLE = "single_best"
NAMED = 5
"""Tensors that are named where a model does not fit."""


@dataclass(frozen=True)
class Subject:
    """What is simulated: a model on inputs like ``feeds``; with a ``recipe``, its training step.

    ``name`` stands in reports.
    """

    model: ir.Model
    feeds: Mapping[str, Array]
    name: str = "model"
    recipe: Recipe | None = None
    labels: Array | None = None
    mode: ExecutionMode = DEFAULT

    @property
    def trains(self) -> bool:
        return self.recipe is not None


@dataclass(frozen=True)
class Setup:
    """On what, and how. ``machine`` is a name or a TOML file; ``processors`` are all by default.

    ``runs`` are simulated one by one, then (``seconds``) the model repeats for so long. ``memory``
    is a budget for training steps (``512MiB``; ``auto``: what the phone has free), ``lossy``
    whether what loses precision may keep it.
    """

    machine: str
    processors: tuple[str, ...] = ()
    policy: str = AUTO
    condition: str = "idle"
    engine: str = SimulatedOptions.engine
    precision: str = ""
    wait: str = SimulatedOptions.wait
    seed: int = 0
    runs: int = 10
    seconds: float = 0.0
    queue: str = SimulatedOptions.queue
    fusion: str = SimulatedOptions.fusion
    memory: str = ""
    lossy: bool = False

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise UsageError(f"runs must be at least 1, not {self.runs}")
        for name, value in (
            ("engine", self.engine),
            ("precision", self.precision),
            ("wait", self.wait),
            ("queue", self.queue),
            ("fusion", self.fusion),
        ):
            if value and value not in CHOICES[name]:
                known = known_names(value, CHOICES[name])
                raise UsageError(f"{name} {value!r} is unknown; {known}")

    @property
    def options(self) -> SimulatedOptions:
        return SimulatedOptions(
            engine=self.engine,
            precision=self.precision,
            numerics=NONE,
            condition=self.condition,
            wait=self.wait,
            queue=self.queue,
            fusion=self.fusion,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Simulation:
    """What a plan led to on one phone under one condition.

    ``latencies_ms`` by run, ``energy_j`` of the last run by part, ``busy`` the share of it that
    each processor worked, ``samples`` of the repetition. ``needed_bytes`` of ``free_bytes`` are
    allocated; ``build_ms`` is spent once, before the first run. The trace is of the last run.
    ``memory_plan`` is how a training step keeps its budget.
    """

    setup: Setup
    title: str
    policy: str
    plan: Plan
    program: Program
    latencies_ms: tuple[float, ...]
    energy_j: Mapping[str, float]
    busy: Mapping[str, float]
    copied_bytes: int
    copies: int
    needed_bytes: int
    free_bytes: int
    build_ms: float
    celsius: float
    battery_share: float
    peak_gbps: float
    trace: Trace
    record: ProfileRecord
    samples: tuple[Sample, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    memory_plan: MemoryPlan | None = None

    @property
    def ms(self) -> float:
        """Median latency of a run."""
        return median(self.latencies_ms)

    @property
    def total_j(self) -> float:
        """Energy of a run, the whole phone's."""
        return sum(self.energy_j.values())


def simulate(subject: Subject, setup: Setup) -> list[Simulation]:
    """Plan and run; one result per policy that was asked for, shortest first (``all``: each).

    Raises:
        UsageError: an unknown machine, condition, policy or engine.
        ProcessorError: a processor that the phone lacks, or the model does not fit its memory.
        MemoryBudgetError: no plan was found that keeps the budget.
    """
    soc = machine_named(setup.machine)
    if setup.memory:
        return _within_memory(subject, setup, soc)
    plans, left_out = _plans(subject, setup, soc)
    found = [_run(subject, replace(setup, policy=plan.policy), soc, plan) for plan in plans]
    found = [replace(each, left_out=left_out) for each in found]
    return sorted(found, key=lambda each: each.ms)


def _within_memory(subject: Subject, setup: Setup, soc: Soc) -> list[Simulation]:
    """Training steps within a budget: on one processor by all techniques, on several as placed.

    ``auto`` is the fastest of each processor alone and of the best plan on all of them.
    """
    if not subject.trains:
        raise UsageError("--memory is the budget of a training step: give --train too")
    names = setup.processors or soc.processors
    alone = [replace(setup, processors=(name,), policy=SINGLE) for name in names]
    several = {
        AUTO: [setup],
        ALL: [replace(setup, policy=name) for name in POLICIES if name != SINGLE],
        SINGLE: [],
    }.get(setup.policy)
    tried = [setup] if several is None else [*alone, *(several if len(names) > 1 else [])]
    found: list[Simulation] = []
    refused: dict[str, CoexecError] = {}
    for each in tried:
        try:
            found.append(_run(subject, each, soc, _planned(subject, each, soc).plan))
        except (MemoryBudgetError, ProcessorError) as reason:
            refused[f"{each.policy} on {', '.join(each.processors or names)}"] = reason
    if not found:
        # What a smaller budget or batch would change tells more than what an NPU never executes.
        raise max(refused.values(), key=lambda reason: isinstance(reason, MemoryBudgetError))
    left_out = {what: str(reason) for what, reason in refused.items()}
    found = sorted((replace(each, left_out=left_out) for each in found), key=lambda each: each.ms)
    return found if setup.policy == ALL else found[:1]


def machine_named(name: str) -> Soc:
    """A phone of the package by name, or a file that describes one or has a PC's measured rates.

    Raises:
        UsageError: neither (the known ones are listed), or a file of which a key is named.
    """
    if not name.endswith(".toml"):
        return find_soc(name)
    path = Path(name)
    return read_desk(path) if is_machine(path) else read_soc(path)


def open_phone(
    setup: Setup, soc: Soc, *, steady: bool = False
) -> tuple[Phone, dict[str, Processor]]:
    """A phone of its own, with its processors by name; nothing varies on a ``steady`` one."""
    options = setup.options
    phone = Phone(soc, condition_named(setup.condition), setup.seed, walled=False, steady=steady)
    names = setup.processors or soc.processors
    known = soc.processors
    for name in names:
        if name.partition(":")[0] not in known:
            raise ProcessorError(f"{soc.title} has {', '.join(known)}, no {name!r}")
    opened = [SimulatedProcessor(phone, name, options) for name in names]
    return phone, {each.name: each for each in opened}


def _plans(subject: Subject, setup: Setup, soc: Soc) -> tuple[list[Plan], Mapping[str, str]]:
    """The plan that was asked for, or each policy's; and why a policy has none."""
    planning = _planned(subject, setup, soc)
    ranking = planning.ranking
    if setup.policy != ALL:
        return [planning.plan], ranking.left_out
    # The planned graph is another one where the batch is divided: the others have theirs without.
    divided = ranking.chosen.policy == BATCH_PARALLEL
    base = _planned(subject, replace(setup, policy=SINGLE), soc) if divided else planning
    outcomes = [each for each in base.ranking.outcomes if each.policy != BATCH_PARALLEL]
    plans = [base.planned.plan(each) for each in outcomes]
    if divided:
        plans.append(planning.plan)
    elif len(outcomes) < len(ranking.outcomes):
        plans.append(_planned(subject, replace(setup, policy=BATCH_PARALLEL), soc).plan)
    return plans, ranking.left_out


def _planned(subject: Subject, setup: Setup, soc: Soc) -> Planning:
    # Which plan is the fastest is not to be left to chance.
    _, processors = open_phone(setup, soc, steady=True)
    how = PlanOptions(setup.policy, seconds=0.0)
    if subject.trains:
        return plan_training(_trainer(subject, setup, processors, None), subject.feeds, how)
    planning = plan_inference(subject.model, subject.feeds, processors, how)
    if setup.policy != AUTO:
        return planning
    tried = verify(subject.model, subject.feeds, processors, planning)
    plan = tried.planning.plan
    named = plan if plan.policy in NAMES else replace(plan, policy=SINGLE)
    return replace(tried.planning, plan=named)


def _trainer(
    subject: Subject, setup: Setup, processors: Mapping[str, Processor], plan: Plan | None
) -> Trainer:
    assert subject.recipe is not None
    parts = (subject.model, subject.recipe, processors)
    if not setup.memory:
        return Trainer(*parts, mode=subject.mode, plan=plan)
    # One processor leaves nothing to place: its steps may change in all ways that save memory.
    follow = plan if len(processors) > 1 else None
    budget = _budget_bytes(setup, next(iter(processors.values())))
    return Trainer(*parts, mode=subject.mode, plan=follow, memory=budget, lossy=setup.lossy)


def _budget_bytes(setup: Setup, processor: Processor) -> int:
    """What ``--memory`` says; of ``auto``, what the phone has free."""
    if setup.memory != ALL_FREE:
        return budget_bytes(setup.memory)
    assert isinstance(processor, SimulatedProcessor)
    return processor.phone.memory.free_bytes


def _compiled(
    subject: Subject, setup: Setup, processors: Mapping[str, Processor], plan: Plan
) -> tuple[Session | Trainer, Step]:
    """The model or its training, with a function that runs it once."""
    if not subject.trains:
        session = Session(subject.model, processors, subject.mode, plan)
        return session, lambda trace: session.run(subject.feeds, trace=trace)
    trainer = _trainer(subject, setup, processors, plan)
    return trainer, lambda trace: trainer.step(subject.feeds, subject.labels, trace)


def _run(subject: Subject, setup: Setup, soc: Soc, plan: Plan) -> Simulation:
    phone, processors = open_phone(setup, soc)
    compiled, step = _compiled(subject, setup, processors, plan)
    engine = phone.engine
    latencies: list[float] = []
    trace = Trace()
    tape: Tape | None = None
    before, busy = engine.ledger.joules, busy_us(phone)
    for number in range(setup.runs):
        start = engine.now_us
        before, busy = engine.ledger.joules, busy_us(phone)
        with phone.timeline.recording() as recorded:
            step(trace if number == setup.runs - 1 else None)
        tape = recorded
        latencies.append((engine.now_us - start) / 1e3)
        require_memory(phone, compiled.program)
    energy = energy_between(before, engine.ledger.joules)
    worked = {name: us - busy[name] for name, us in busy_us(phone).items()}
    samples = tuple(repeat(phone, step, setup.seconds, tape)) if setup.seconds else ()
    copies = [event for event in trace.leaves() if event.kind == "copy"]
    return Simulation(
        setup=setup,
        title=soc.title,
        policy=plan.policy,
        plan=compiled.plan,
        program=compiled.program,
        latencies_ms=tuple(latencies),
        energy_j=energy,
        busy={name: us / latencies[-1] / 1e3 for name, us in worked.items()},
        copied_bytes=sum(event.bytes for event in copies),
        copies=len(copies),
        needed_bytes=phone.memory.allocated_bytes + compiled.program.constant_bytes,
        free_bytes=phone.memory.free_bytes,
        build_ms=build_ms(soc, compiled.program),
        celsius=engine.hottest_celsius,
        battery_share=_battery_share(engine.ledger.total_j, soc),
        peak_gbps=engine.peak_gbps,
        trace=trace,
        record=_record(subject, compiled, soc, setup, trace),
        samples=samples,
        memory_plan=compiled.memory_plan if isinstance(compiled, Trainer) else None,
    )


def _battery_share(joules: float, soc: Soc) -> float:
    """Of a full battery; 0 where there is none."""
    capacity = 3600 * soc.thermal.battery_wh
    return joules / capacity if capacity else 0.0


def _record(
    subject: Subject, compiled: Session | Trainer, soc: Soc, setup: Setup, trace: Trace
) -> ProfileRecord:
    rates = {
        name: each.rates()
        for name, each in compiled.processors.items()
        if isinstance(each, SimulatedProcessor)
    }
    cpu = Pricing(soc, "cpu", setup.options).rates()
    mode = "training" if subject.trains else "inference"
    return record_of_trace(mode, subject.name, compiled, subject.feeds, trace, rates, cpu)


def require_memory(phone: Phone, program: Program, beside_bytes: int = 0) -> None:
    """Refuse what a phone has no memory for; ``beside_bytes`` are constants of other programs.

    Raises:
        ProcessorError: by how much it is too much, and the largest tensors.
    """
    memory = phone.memory
    needed = memory.allocated_bytes + program.constant_bytes + beside_bytes
    if needed <= memory.wall_bytes:
        return
    names = ", ".join(f"{n} {bytes_text(b)}" for n, b in largest_tensors(program, NAMED))
    raise ProcessorError(
        f"the model does not fit {phone.soc.title} ({phone.condition.name}): it takes "
        f"{bytes_text(needed)}, {bytes_text(memory.free_bytes)} are free and "
        f"{bytes_text(memory.wall_bytes - memory.free_bytes)} can be swapped: "
        f"{bytes_text(needed - memory.wall_bytes)} too much. Largest at the peak: {names}. "
        "Try a smaller batch"
    )


def build_ms(soc: Soc, program: Program) -> float:
    """Time for building the NPU's graphs, once."""
    if soc.npu is None:
        return 0.0
    nodes = [
        len(getattr(executable, "kernels", ()))
        for executable in program.executables
        if "/npu" in executable.processor
    ]
    return soc.npu.build_ms_per_operator * sum(nodes)
