"""Systems on chip as TOML files: those of the package, and any that a person wrote.

Every table of figures has a ``sources`` table that maps a key, or ``"*"`` for all others, to a name
under the file's ``[sources]``::

    [sources]
    brief = { basis = "specified", text = "Snapdragon 865 product brief" }

    [memory]
    peak_gbps = 44.0
    sources = { "*" = "brief" }
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from coexec.base.errors import UsageError
from coexec.base.names import known_names
from coexec.core.npu_operators import NpuOperators, npu_operators
from coexec.core.soc import (
    Cluster,
    Gpu,
    Latencies,
    Latency,
    Memory,
    Npu,
    Soc,
    Thermal,
)
from coexec.core.soc_source import Source, read_source
from coexec.core.toml_table import TomlTable

FOLDER = files("coexec") / "machines"
Made = TypeVar("Made")
CLUSTERS = ("prime", "big", "little")
_MARKS = ("+", "g", "s", "t", "e", "pro", "gen", "elite", "ultra", "fe", "aa", "ab", "ac", "p")
VARIANTS = frozenset((word,) for word in _MARKS)
"""What makes the name of a chip that of another one."""
MAY_BE_ZERO = frozenset({"battery_wh", "system_cache_kib"})
"""Of the tables of numbers only: a board has no battery, a small chip no system cache."""


@functools.cache
def soc_names() -> tuple[str, ...]:
    """Systems on chip that come with the package."""
    names = (entry.name for entry in FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


@functools.cache
def find_soc(name: str) -> Soc:
    """A system on chip of the package, by name or alias (``Snapdragon865``).

    Raises:
        UsageError: unknown; the message lists the known ones.
    """
    if name in soc_names():
        with as_file(FOLDER / f"{name}.toml") as path:
            return read_soc(path)
    found = _aliases().get(name)
    if found is None:
        raise UsageError(f"unknown machine {name!r}; {known_names(name, soc_names())}")
    return find_soc(found)


def knows_soc(name: str) -> bool:
    """Whether :func:`find_soc` finds it."""
    return name in soc_names() or name in _aliases()


def soc_in(text: str) -> Soc | None:
    """The chip that a text names, as ``Qualcomm SM8150-AC Snapdragon 855+ (Kryo ...)`` does.

    The longest name counts; where the text goes on with what tells chips apart, such as ``+`` or
    ``Pro``, it is another chip. None if no chip of the package is named.
    """
    words = _words(text)
    best: tuple[int, str] = (0, "")
    for written, name in _spellings().items():
        count = len(written)
        for start in range(len(words) - count + 1):
            following = words[start + count : start + count + 1]
            if words[start : start + count] == written and following not in VARIANTS:
                best = max(best, (count, name))
    return find_soc(best[1]) if best[1] else None


@functools.cache
def _spellings() -> Mapping[tuple[str, ...], str]:
    """Names, and what of aliases is no name of a phone, as words."""
    names = {name: name for name in soc_names()} | dict(_aliases())
    return {_words(written): name for written, name in names.items()}


def _words(text: str) -> tuple[str, ...]:
    """Runs of letters and of digits, and each plus sign; SDM is an older form of SD."""
    plain = text.lower().replace("plus", "+").replace("sdm", "sd")
    return tuple(re.findall(r"[a-z]+|\d+|\+", plain))


@functools.cache
def _aliases() -> Mapping[str, str]:
    return {alias: name for name in soc_names() for alias in find_soc(name).aliases}


def read_soc(path: Path) -> Soc:
    """The system on chip that a file describes.

    Raises:
        UsageError: unreadable, not TOML, a key that is missing, unknown or impossible, or a figure
            without a source; the message names the key.
    """
    table = TomlTable.of_file(path)
    sources = {name: _source(each) for name, each in table.tables("sources").items()}
    npu = _npu(table.table("npu")) if "npu" in table.values else None
    soc = Soc(
        name=table.text("name"),
        title=table.text("title"),
        vendor=table.text("vendor"),
        year=int(table.number("year", above_zero=True)),
        clusters=_clusters(table.table("cpu")),
        gpu=_gpu(table.table("gpu")),
        npu=npu,
        memory=_memory(table.table("memory")),
        latency=_latencies(table.table("latency")),
        thermal=_numbers(Thermal, table.table("thermal")),
        aliases=tuple(map(str, table.array("aliases"))),
        sources=_all_sources(table, sources) | _source_of_operators(npu),
    )
    table.nothing_else()
    return soc


def _source(table: TomlTable) -> Source:
    source = read_source(table)
    table.nothing_else()
    return source


def _clusters(table: TomlTable) -> tuple[Cluster, ...]:
    found = tuple(_cluster(name, table.table(name)) for name in CLUSTERS if name in table.values)
    table.seen.update(CLUSTERS)
    table.nothing_else()
    if not found:
        raise table.error("", f"has no cluster; one of {', '.join(CLUSTERS)} is wanted")
    return found


def _cluster(name: str, table: TomlTable) -> Cluster:
    mhz, power = _steps(table, "core_mw")
    rates = table.numbers("flop_per_cycle")
    _require(table, "flop_per_cycle.float32", "float32" in rates)
    cluster = Cluster(
        name=name,
        core=table.text("core"),
        cores=int(table.number("cores", above_zero=True)),
        mhz=mhz,
        core_mw=power,
        idle_mw=table.number("idle_mw"),
        flop_per_cycle=rates,
        sustained_share=_shares(table),
        gbps=table.number("gbps", above_zero=True),
        l2_kib=table.number("l2_kib", above_zero=True),
    )
    return _done(table, cluster)


def _shares(table: TomlTable) -> dict[str, float]:
    shares = table.numbers("sustained_share")
    _require(table, "sustained_share.float32", "float32" in shares)
    for name, share in shares.items():
        if share > 1:
            raise table.error(f"sustained_share.{name}", f"is {share:g}; a part of 1 is wanted")
    return shares


def _gpu(table: TomlTable) -> Gpu:
    mhz, power = _steps(table, "step_mw")
    rates = table.numbers("gflops")
    _require(table, "gflops.float32", "float32" in rates)
    gpu = Gpu(
        name=table.text("name"),
        family=table.text("family"),
        mhz=mhz,
        step_mw=power,
        idle_mw=table.number("idle_mw"),
        gflops=rates,
        compute_units=int(table.number("compute_units", above_zero=True)),
        wave=int(table.number("wave", above_zero=True)),
        waves_per_unit=table.number("waves_per_unit", above_zero=True),
        max_group=int(table.number("max_group", above_zero=True)),
        cache_kib=table.number("cache_kib", above_zero=True),
        buffer_slowdown=table.number("buffer_slowdown", above_zero=True),
        sustained_share=table.number("sustained_share", above_zero=True),
        kernel_us=table.number("kernel_us", above_zero=True),
    )
    if gpu.sustained_share > 1:
        raise table.error("sustained_share", f"is {gpu.sustained_share:g}, a part of 1 is wanted")
    return _done(table, gpu)


def _npu(table: TomlTable) -> Npu:
    mhz, power = _steps(table, "step_mw")
    npu = Npu(
        name=table.text("name"),
        mhz=mhz,
        step_mw=power,
        idle_mw=table.number("idle_mw"),
        gops=table.numbers("gops"),
        tcm_kib=table.number("tcm_kib", above_zero=True),
        static_shapes=table.truth("static_shapes"),
        build_ms_per_operator=table.number("build_ms_per_operator"),
        operators=_operators(table),
    )
    return _done(table, npu)


def _operators(table: TomlTable) -> NpuOperators:
    """A list of the package by name, or the operators themselves."""
    if isinstance(table.values.get("operators"), list):
        return NpuOperators("its own", frozenset(map(str, table.array("operators"))))
    name = table.text("operators")
    if name not in npu_operators():
        raise table.error("operators", f"is {name!r}; {known_names(name, npu_operators())}")
    return npu_operators()[name]


def _source_of_operators(npu: Npu | None) -> dict[str, Source]:
    """That of a shared list; one in the chip's file has the file's."""
    source = npu.operators.source if npu else None
    return {"npu.operators": source} if source else {}


def _memory(table: TomlTable) -> Memory:
    memory = _numbers(Memory, table)
    if memory.system_gib >= memory.ram_gib:
        raise table.error("system_gib", f"is {memory.system_gib:g}, all of ram_gib or more")
    for key in ("cpu_gbps", "gpu_gbps", "npu_gbps", "shared_gbps"):
        if getattr(memory, key) > memory.peak_gbps:
            raise table.error(key, f"is above peak_gbps, {memory.peak_gbps:g}")
    return memory


def _latencies(table: TomlTable) -> Latencies:
    per_byte = ("map_us_per_byte", "layout_us_per_byte")
    values: dict[str, Any] = {key: table.number(key) for key in per_byte}
    names = (key for key in Latencies.__dataclass_fields__ if key not in per_byte)
    values |= {name: _latency(table, name) for name in names}
    return _done(table, Latencies(**values))


def _latency(table: TomlTable, key: str) -> Latency:
    low, median, high = _rising(table, key, count=3, strictly=False)
    return Latency(median, low, high)


def _steps(table: TomlTable, power: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Frequency steps and the power at each."""
    mhz = _rising(table, "mhz")
    milliwatts = tuple(float(value) for value in table.array(power))
    if len(milliwatts) != len(mhz) or min(milliwatts) <= 0:
        raise table.error(power, f"wants {len(mhz)} numbers above 0, one for each of mhz")
    return mhz, milliwatts


def _rising(table: TomlTable, key: str, count: int = 0, strictly: bool = True) -> tuple[float, ...]:
    """A list of non-negative numbers, each (if ``strictly``) above the one before."""
    values = table.array(key)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if not values or not numbers or (count and len(values) != count) or values[0] < 0:
        raise table.error(key, f"is {values!r}; {count or 'some'} numbers are wanted")
    if any(b < a or (strictly and a == b) for a, b in pairwise(values)):
        raise table.error(key, f"is {values!r}; rising numbers are wanted")
    return tuple(map(float, values))


def _numbers(kind: Callable[..., Made], table: TomlTable) -> Made:
    """A dataclass of numbers only."""
    names = getattr(kind, "__dataclass_fields__", {})
    return _done(
        table,
        kind(**{n: table.number(n, above_zero=n not in MAY_BE_ZERO) for n in names}),
    )


def _done(table: TomlTable, value: Made) -> Made:
    table.seen.add("sources")
    table.nothing_else()
    return value


def _require(table: TomlTable, key: str, present: bool) -> None:
    if not present:
        raise table.error(key, "is missing")


def _all_sources(table: TomlTable, known: Mapping[str, Source]) -> dict[str, Source]:
    """Source of every figure by its path."""
    parts = {
        key: table.table(key)
        for key in ("gpu", "npu", "memory", "latency", "thermal")
        if key in table.values
    }
    parts |= {f"cpu.{name}": each for name, each in table.tables("cpu").items()}
    found = {}
    for prefix, part in parts.items():
        names = part.table("sources")
        for key in part.values:
            if key != "sources":
                found[f"{prefix}.{key}"] = _source_of(names, key, known)
    return found


def _source_of(names: TomlTable, key: str, known: Mapping[str, Source]) -> Source:
    wanted = key if key in names.values else "*"
    name = names.text(wanted)
    if name not in known:
        raise names.error(wanted, f"is {name!r}; [sources] has {', '.join(known)}")
    return known[name]
