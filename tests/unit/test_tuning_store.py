"""Tuned values as files: round trip, merging, entries that no longer hold, bad files."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coexec.base.errors import SaveError, UsageError
from coexec.core.types import OpCall, Region, RegionNode, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.choose import Choice, by_default
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.executable import KernelStep, OpenCLExecutable
from coexec.processors.opencl.family import DeviceFacts, Variant
from coexec.processors.opencl.fusion.fuse import fuse
from coexec.processors.opencl.options import parse_options
from coexec.processors.opencl.processor import chooser_of
from coexec.processors.opencl.table import KERNELS
from coexec.processors.opencl.tuning import lookup
from coexec.processors.opencl.tuning.key import CallKey, key_of
from coexec.processors.opencl.tuning.lookup import TunedChooser, load_tuned, tuned_path
from coexec.processors.opencl.tuning.store import (
    DeviceId,
    Entry,
    TunedFile,
    merge,
    read_tuned,
    source_digest,
)

FACTS = DeviceFacts("any", "maker", True, True, 256, 1 << 15, 4, 64)
DEVICE = DeviceId.of(FACTS)
FLOAT = np.dtype(np.float32)


def call(identifier: str, *shapes: tuple[int, ...], **attributes: Any) -> OpCall:
    op = OPERATORS[identifier]
    inputs = tuple(TensorType(shape, FLOAT) for shape in shapes)
    return op.typed(OpCall(op.op_type, inputs, attributes, domain=op.domain, version=21))


def relu(*shape: int) -> OpCall:
    return call("Relu", shape)


def entry(of: OpCall, date: str = "2026-01-01", **changes: Any) -> Entry:
    """The naive variant with its second work-group size, twice as fast as the default."""
    family = KERNELS[of.identifier]
    naive = family.naive
    values = {"LOCAL": naive.space["LOCAL"][1]}
    kernels = Choice(naive, values).lower(of, FACTS).calls
    sources = {kernel.family: source_digest(kernel.family) for kernel in kernels}
    made = Entry(key_of(of), naive.name, values, 2.0, 1.0, date, sources)
    return replace(made, **changes)


ENTRY = entry(relu(32, 64))
CHOSEN = f"naive LOCAL={ENTRY.values['LOCAL']}"


def chosen(chooser: TunedChooser, of: OpCall) -> str:
    return str(chooser(KERNELS[of.identifier], of, FACTS))


def default(of: OpCall) -> str:
    return str(by_default(KERNELS[of.identifier], of, FACTS))


# files


def test_a_file_survives_writing_and_reading(tmp_path: Path) -> None:
    file = TunedFile(DEVICE, (ENTRY, entry(relu(8, 8))))
    file.write(tmp_path / "tuned.json")
    read = read_tuned(tmp_path / "tuned.json")
    assert read.device == DEVICE
    assert set(map(repr, read.entries)) == set(map(repr, file.entries))
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tuned.json").read_bytes()


def test_a_file_without_entries_is_a_file(tmp_path: Path) -> None:
    TunedFile(DEVICE).write(tmp_path / "tuned.json")
    assert read_tuned(tmp_path / "tuned.json") == TunedFile(DEVICE)


def test_merging_keeps_the_latest_of_each_call(tmp_path: Path) -> None:
    old, new = entry(relu(32, 64), "2026-01-01", ms=1.5), entry(relu(32, 64), "2026-02-01")
    other = entry(relu(5, 5))
    TunedFile(DEVICE, (new,)).write(tmp_path / "a.json")
    TunedFile(DEVICE, (old, other)).write(tmp_path / "b.json")
    for order in ("ab", "ba"):
        merged = merge([tmp_path / f"{name}.json" for name in order])
        assert {e.key: e.ms for e in merged.entries} == {new.key: 1.0, other.key: 1.0}


def test_files_of_different_devices_are_not_merged(tmp_path: Path) -> None:
    TunedFile(DEVICE).write(tmp_path / "a.json")
    TunedFile(replace(DEVICE, name="other")).write(tmp_path / "b.json")
    with pytest.raises(UsageError) as caught:
        merge([tmp_path / "a.json", tmp_path / "b.json"])
    assert str(caught.value) == (
        f"{tmp_path}/a.json is of 'any' (maker, 4 compute units), {tmp_path}/b.json of 'other' "
        "(maker, 4 compute units): only files of one device can be merged"
    )


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"format": 1', '"format": 9', "format is 9; this coexec reads 1"),
        ('"format": 1', '"format": true', "format is True; an integer is wanted"),
        ('"vendor": "maker", ', "", "device.vendor is missing"),
        ('"operator": "Relu", ', "", "entries[0].operator is missing"),
        ('"sizes": [32, 64]', '"sizes": [32, "b"]', "entries[0].sizes is [32, 'b']; a list"),
        ('"ms": 1.0', '"ms": NaN', "entries[0].ms is nan; it must be finite"),
        ('"ms": 1.0', '"ms": "fast"', "entries[0].ms is 'fast'; a number is wanted"),
        ('"LOCAL": ', '"LOCAL": 0.5, "X": ', "entries[0].values.LOCAL is 0.5; an integer"),
        ('"sources": {', '"sources": 1, "x": {', "entries[0].sources is 1; an object is wanted"),
        ('"entries": [', '"entries": [1, ', "entries[0] is not a JSON object"),
        ('{"format"', '[{"format"', "is not a file of tuned values: "),
    ],
)
def test_a_bad_key_is_named_with_its_file(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    path = tmp_path / "tuned.json"
    TunedFile(DEVICE, (ENTRY,)).write(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        read_tuned(path)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_unreadable_and_unwritable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*absent\.json: No such file"):
        read_tuned(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.json is not a file of tuned values"):
        read_tuned(tmp_path / "binary.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match=r"list\.json: the file is not a JSON object"):
        read_tuned(tmp_path / "list.json")
    with pytest.raises(SaveError, match=r"tuned\.json"):
        TunedFile(DEVICE).write(tmp_path / "no" / "tuned.json")


# entries that no longer hold


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"sources": {"unary": "0" * 16}}, "unary.cl changed"),
        ({"sources": {"gone": "0" * 16}}, "gone.cl changed"),
        ({"variant": "clever"}, "Relu has no variant 'clever' any more"),
        ({"values": {"LOCAL": 16, "MR": 4}}, "the tunables of Relu's 'naive' have changed"),
        ({"values": {}}, "the tunables of Relu's 'naive' have changed"),
        ({"values": {"LOCAL": 7}}, "LOCAL=7 is no value of Relu's 'naive'"),
        ({"key": CallKey("Gone", "", ())}, "Gone has no variant 'naive' any more"),
    ],
)
def test_an_entry_holds_as_long_as_its_kernels(changes: dict[str, Any], reason: str | None) -> None:
    changed = replace(ENTRY, **changes)
    assert changed.stale(KERNELS.get(changed.key.operator)) == reason


def test_stale_entries_are_ignored_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path))
    path = tuned_path(FACTS)
    path.parent.mkdir()
    stale = [entry(relu(8, size), sources={"unary": "old"}) for size in (8, 100)]
    stale.append(entry(relu(8, 300), values={"LOCAL": 7}))
    TunedFile(DEVICE, (ENTRY, *stale)).write(path)
    with caplog.at_level(logging.WARNING):
        chooser = load_tuned(FACTS)
    assert caplog.messages == [
        (
            f"{path}: 3 of 4 tuned values are ignored (2 times unary.cl changed; LOCAL=7 is no "
            "value of Relu's 'naive'); run coexec tune again"
        )
    ]
    assert chosen(chooser, relu(32, 64)) == CHOSEN
    assert chosen(chooser, relu(8, 8)) == default(relu(8, 8))
    assert chosen(chooser, relu(8, 300)) == default(relu(8, 300))


def test_a_damaged_file_is_reported_and_defaults_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path))
    path = tuned_path(FACTS)
    path.parent.mkdir()
    path.write_text("{")
    with caplog.at_level(logging.WARNING):
        chooser = load_tuned(FACTS)
    (message,) = caplog.messages
    assert message.startswith(f"tuned values are not used: {path} is not a file of tuned values")
    assert chosen(chooser, relu(32, 64)) == default(relu(32, 64))


# which entry serves a call


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (relu(32, 64), relu(32, 64), 0.0),
        (relu(32, 64), relu(64, 64), 1.0),
        (relu(32, 64), relu(8, 64), 2.0),
        (relu(32, 64), relu(64, 32), 2**0.5),
        (relu(32, 64), relu(32, 64, 1), np.inf),
        (relu(0, 64), relu(1, 64), 0.0),
        (call("Add", (8, 4), (8, 4)), call("Add", (8, 4), (4,)), np.inf),
        (call("Add", (8, 4), (4,)), call("Add", (16, 4), (4,)), 1.0),
        (call("MatMul", (8, 4), (4, 2)), call("MatMul", (16, 4), (4, 2)), 1.0),
        (call("MatMul", (8, 4), (4, 2)), call("MatMul", (3, 8, 4), (4, 2)), np.inf),
        (call("MatMul", (4, 2, 3), (4, 3, 5)), call("MatMul", (8, 2, 3), (8, 3, 5)), 1.0),
        (call("MatMul", (4, 2, 3), (4, 3, 5)), call("MatMul", (4, 2, 3), (3, 5)), np.inf),
        (call("MatMul", (4,), (4,)), call("MatMul", (8,), (8,)), 1.0),
        (call("Gemm", (8, 4), (4, 2)), call("Gemm", (8, 4), (2, 4), transB=1), np.inf),
        (call("Gemm", (8, 4), (4, 2)), call("Gemm", (8, 4), (4, 2), (2,)), np.inf),
        (
            call("Conv", (8, 16, 9, 9), (32, 16, 3, 3), pads=(1, 1, 1, 1)),
            call("Conv", (4, 16, 9, 9), (32, 16, 3, 3), pads=(1, 1, 1, 1)),
            1.0,
        ),
        (
            call("Conv", (8, 16, 9, 9), (32, 16, 3, 3), pads=(1, 1, 1, 1)),
            call("Conv", (8, 16, 9, 9), (32, 16, 3, 3)),
            np.inf,
        ),
        (
            call("Conv", (8, 16, 9, 9), (32, 16, 1, 1)),
            call("Conv", (8, 16, 9, 9), (32, 16, 3, 3)),
            np.inf,
        ),
        (
            call("Conv", (8, 16, 9, 9), (16, 1, 3, 3), group=16),
            call("Conv", (8, 32, 9, 9), (32, 1, 3, 3), group=32),
            2**0.5,
        ),
        (
            call("MaxPool", (8, 4, 8, 8), kernel_shape=(2, 2), strides=(2, 2)),
            call("MaxPool", (16, 4, 8, 16), kernel_shape=(2, 2), strides=(2, 2)),
            2**0.5,
        ),
        (
            call("MaxPool", (8, 4, 8, 8), kernel_shape=(2, 2), strides=(2, 2)),
            call("MaxPool", (8, 4, 8, 8), kernel_shape=(3, 3), strides=(2, 2)),
            np.inf,
        ),
    ],
)
def test_distance_is_by_sizes_within_one_kind(a: OpCall, b: OpCall, distance: float) -> None:
    assert key_of(a).distance(key_of(b)) == pytest.approx(distance)
    assert key_of(b).distance(key_of(a)) == pytest.approx(distance)


def fused(name: str, *shape: int) -> OpCall:
    """A fused node of ``max(batch_norm(x), 0)`` or of ``max(a + b, 0) * 2``."""
    channels = shape[1:2]
    nodes = {
        "normalised": [
            call("BatchNormalization", shape, channels, channels, channels, channels),
            relu(*shape),
        ],
        "chained": [call("Add", shape, shape), relu(*shape)],
    }[name]
    inputs = tuple(f"x{i}" for i in range(len(nodes[0].inputs)))
    types = {name: nodes[0].input(i) for i, name in enumerate(inputs)}
    region = Region(
        (RegionNode(nodes[0], inputs, ("a",)), RegionNode(nodes[1], ("a",), ("y",))),
        inputs,
        ("y",),
        types | {"a": TensorType(shape, FLOAT), "y": TensorType(shape, FLOAT)},
    )
    (node,) = fuse(region, FACTS).nodes
    return node.call


@pytest.mark.parametrize("name", ["normalised", "chained"])
def test_fused_calls_are_near_each_other_too(name: str) -> None:
    one, doubled, more_channels = (
        fused(name, *s) for s in ((4, 32, 8, 8), (8, 32, 8, 8), (4, 64, 8, 8))
    )
    assert key_of(one).distance(key_of(doubled)) == 1.0
    assert key_of(one).distance(key_of(more_channels)) == 1.0
    assert "Relu" in key_of(one).kind
    assert (
        key_of(one).distance(
            key_of(fused("chained" if name == "normalised" else "normalised", 4, 32, 8, 8))
        )
        == np.inf
    )


def test_known_values_are_part_of_the_kind() -> None:
    exponents = [
        replace(call("Pow", (8, 4), ()), constants={1: np.array(value, np.float32)})
        for value in (2, 2, 3)
    ]
    first, same, other = map(key_of, exponents)
    assert first == same != other


@pytest.mark.parametrize(
    ("shape", "near"), [((32, 64), True), ((64, 64), True), ((16, 64), True), ((128, 64), False)]
)
def test_a_close_call_takes_the_values_of_a_tuned_one(shape: tuple[int, ...], near: bool) -> None:
    found = chosen(TunedChooser(([ENTRY],)), relu(*shape))
    assert found == (CHOSEN if near else default(relu(*shape)))
    assert default(relu(*shape)) != CHOSEN


def test_the_nearest_entry_counts_and_ties_are_decided_by_size() -> None:
    local = KERNELS["Relu"].naive.space["LOCAL"]
    small = entry(relu(16, 64), values={"LOCAL": local[0]})
    large = entry(relu(64, 64), values={"LOCAL": local[2]})
    for entries in ([small, large], [large, small]):
        chooser = TunedChooser((entries,))
        assert chosen(chooser, relu(32, 64)) == f"naive LOCAL={local[0]}"
        assert chosen(chooser, relu(40, 64)) == f"naive LOCAL={local[2]}"


def test_the_device_comes_before_its_kin() -> None:
    local = KERNELS["Relu"].naive.space["LOCAL"]
    kin = entry(relu(32, 64), values={"LOCAL": local[2]})
    near = entry(relu(64, 64))
    assert chosen(TunedChooser(([near], [kin])), relu(32, 64)) == CHOSEN
    assert chosen(TunedChooser(([], [kin])), relu(32, 64)) == f"naive LOCAL={local[2]}"


def test_where_the_default_won_the_default_stands() -> None:
    """Whatever it is by now, and before what the kin found."""
    beaten = entry(relu(32, 64), ms=2.0)
    assert chosen(TunedChooser(([beaten], [ENTRY])), relu(32, 64)) == default(relu(32, 64))


def test_a_variant_that_does_not_apply_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    family = KERNELS["Relu"]
    picky = Variant("naive", family.naive.lower, lambda *_: "no", family.naive.space)
    only = replace(family, variants=(*family.variants[:-1], picky))
    chooser = TunedChooser(([ENTRY],))
    for _ in range(2):
        assert str(chooser(only, relu(32, 64), FACTS)) == default(relu(32, 64))
    assert caplog.messages == ["the tuned value of Relu 32x64 is ignored: naive: no"]


# from the files to the executable


def write(folder: Path, file: TunedFile) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file.write(folder / "any.json")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder of tuned values, and an empty cache."""
    monkeypatch.setenv("COEXEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(lookup, "package_folder", lambda: tmp_path / "tuned")
    return tmp_path / "tuned"


def test_an_absent_or_empty_folder_means_defaults(package: Path) -> None:
    assert chosen(load_tuned(FACTS), relu(32, 64)) == default(relu(32, 64))
    package.mkdir()
    (package / "README.md").write_text("not a file of values")
    assert chosen(load_tuned(FACTS), relu(32, 64)) == default(relu(32, 64))


@pytest.mark.parametrize(
    ("device", "used"),
    [
        (DEVICE, True),
        (replace(DEVICE, name="sibling", compute_units=8), True),
        (replace(DEVICE, vendor="rival"), False),
        (replace(DEVICE, name="sibling", vector_bytes=32), False),
        (replace(DEVICE, name="sibling", unit_kind="gpu"), False),
    ],
)
def test_packaged_values_serve_the_device_and_its_kin(
    package: Path, device: DeviceId, used: bool
) -> None:
    write(package, TunedFile(device, (ENTRY,)))
    found = chosen(load_tuned(FACTS), relu(32, 64))
    assert found == (CHOSEN if used else default(relu(32, 64)))


def test_the_users_values_come_before_the_packages(package: Path) -> None:
    local = KERNELS["Relu"].naive.space["LOCAL"]
    write(package, TunedFile(DEVICE, (entry(relu(32, 64), values={"LOCAL": local[2]}),)))
    path = tuned_path(FACTS)
    path.parent.mkdir(parents=True)
    TunedFile(DEVICE, (ENTRY,)).write(path)
    assert chosen(load_tuned(FACTS), relu(32, 64)) == CHOSEN


def kernels(executable: OpenCLExecutable) -> list[tuple[str, tuple[int, ...] | None]]:
    steps = [step for step in executable.steps if isinstance(step, KernelStep)]
    return [(step.label.choice, step.local_size) for step in steps]


def test_compiled_regions_use_what_was_tuned_unless_told_not_to(package: Path) -> None:
    write(package, TunedFile(DEVICE, (ENTRY,)))
    region = Region.alone(relu(32, 64))
    compiled = {
        options: compile_region(
            region, FACTS, "p", chooser_of(parse_options("p", dict([options])), FACTS)
        )
        for options in (("tuned", "on"), ("tuned", "off"), ("kernels", "naive"))
    }
    assert kernels(compiled["tuned", "on"]) == [(CHOSEN, (ENTRY.values["LOCAL"],))]
    assert kernels(compiled["tuned", "off"]) == kernels(compile_region(region, FACTS, "p"))
    assert kernels(compiled["tuned", "off"])[0][0] == default(relu(32, 64))
    first = KERNELS["Relu"].naive.space["LOCAL"][0]
    assert kernels(compiled["kernels", "naive"])[0][0] == f"naive LOCAL={first}"


def test_the_same_files_give_the_same_plan(package: Path) -> None:
    write(package, TunedFile(DEVICE, (ENTRY, entry(relu(64, 64), ms=1.2))))
    region = Region.alone(relu(40, 64))
    plans = [compile_region(region, FACTS, "p", load_tuned(FACTS)) for _ in range(2)]
    assert plans[0] == plans[1]
    assert json.dumps(plans[0].to_json()[0]) == json.dumps(plans[1].to_json()[0])


def test_a_variant_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="Relu: no variant 'clever'"):
        compile_region(Region.alone(relu(4)), FACTS, "p", "clever")
