"""Who takes part in which suite, and in which form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coexec.placement.policies.table import AUTO, EXACT, POLICIES

SINGLE, HALF = "fp32", "16 bit"
"""Precisions: products in 16 bits, float16 or bfloat16, are held against one another only."""

LIBRARIES = ("torch", "onnxruntime", "openvino", "tinygrad", "mnn", "ncnn")
"""What ``--peers`` may name."""


@dataclass(frozen=True)
class Contender:
    """A worker's module and options. Ratios are ours over the best peer of the same ``precision``.

    ``library`` is what ``--peers`` calls it, "" for what always takes part. ``kinds`` are prefixes
    of the cases' kinds, but for those of ``without``; of these it takes only ``models`` and
    ``batches``, where there are any. ``beside_us``: it runs in coexec's own interpreter, which
    finds the OpenCL runtimes. Contenders of the same ``worker`` are one process, which their
    ``role`` tells apart: they take turns in it.
    """

    name: str
    module: str
    library: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = False
    precision: str = SINGLE
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    without: tuple[str, ...] = ()
    beside_us: bool = False
    worker: str = ""
    role: str = ""

    @property
    def process(self) -> str:
        """The name of its process."""
        return self.worker or self.name

    def takes(self, kind: str, spec: Mapping[str, Any]) -> bool:
        """Whether it takes part in a case; what it should be able to do but cannot is a row."""
        return (
            any(kind.startswith(prefix) for prefix in self.kinds)
            and not any(kind.startswith(prefix) for prefix in self.without)
            and (not self.models or spec.get("model") in self.models)
            and (not self.batches or spec.get("batch") in self.batches)
        )


TOGETHER = "coexec."
"""Kinds of cases on two processors begin so; the pair's name follows, then what it is."""
EQUAL = "equal"
"""Name of the pair that needs both OpenCL runtimes; others are named after the one they need."""

PLANNING = "planning."

NORMS, POOLS = ("batch_norm", "layer_norm", "softmax"), ("max_pool", "average_pool", "global_pool")
OPERATORS = ("gemm", "conv", *NORMS, *POOLS, "chain", "update")


def ours(runtimes: Sequence[str]) -> list[Contender]:
    """coexec on every runtime, and training there in mixed precision."""
    module = "bench.peers.coexec_peer"
    single = [
        Contender(
            f"coexec {_short(spec)}",
            module,
            "",
            {"processor": spec},
            True,
            kinds=("",),
            without=(TOGETHER, PLANNING),
        )
        for spec in runtimes
    ]
    mixed = [
        Contender(
            f"coexec {_short(spec)} mixed",
            module,
            "",
            {"processor": spec, "precision": "mixed"},
            True,
            HALF,
            ("train",),
        )
        for spec in runtimes
    ]
    return [*single, *mixed]


def _short(processor: str) -> str:
    return processor.removeprefix("opencl:")


def _torch(form: str, kinds: tuple[str, ...], title: str = "") -> Contender:
    return Contender(
        f"PyTorch {title or form}",
        "bench.peers.torch_peer",
        "torch",
        {"form": form},
        precision=HALF if form == "bf16" else SINGLE,
        kinds=kinds,
    )


PEERS = (
    Contender("NumPy", "bench.peers.numpy_peer", kinds=("gemm",)),
    _torch("eager", (*OPERATORS, "train")),
    _torch("channels-last", ("conv", "train")),
    _torch("compile", ("train",)),
    _torch("bf16", ("train",), "bf16 autocast"),
    Contender("ONNX Runtime", "bench.peers.onnxruntime_peer", "onnxruntime", kinds=("infer",)),
    Contender("OpenVINO", "bench.peers.openvino_peer", "openvino", kinds=("infer",)),
    Contender("MNN", "bench.peers.mnn_peer", "mnn", kinds=("infer",)),
    Contender("MNN training", "bench.peers.mnn_peer", "mnn", kinds=("train",), models=("lenet5",)),
    Contender("ncnn", "bench.peers.ncnn_peer", "ncnn", kinds=("infer",)),
)


def _tinygrad(processor: str) -> Contender:
    """LeNet only: tinygrad takes minutes to compile the others, and seconds a step."""
    return Contender(
        f"tinygrad {_short(processor)}",
        "bench.peers.tinygrad_peer",
        "tinygrad",
        {"processor": processor},
        kinds=("train",),
        models=("lenet5",),
        batches=(32,),
        beside_us=True,
    )


def peers(libraries: Sequence[str], runtimes: Sequence[str]) -> list[Contender]:
    """All peers that belong to the libraries, and those that always take part."""
    found = [peer for peer in PEERS if not peer.library or peer.library in libraries]
    return found + [_tinygrad(spec) for spec in runtimes if "tinygrad" in libraries]


LAYER, MODEL, TRAIN, STREAM, LOADED, REMOVED = WORK = (
    *("layer", "model", "train"),
    *("stream", "loaded", "removed"),
)
"""What cases on two processors are: the last parts of their kinds."""
ROLES = (
    ("first", "first alone", False, (LAYER, MODEL, TRAIN, STREAM)),
    ("second", "second alone", False, (LAYER, MODEL, TRAIN, STREAM)),
    ("operator_split", "operator split", True, (LAYER, MODEL)),
    ("auto", "auto", True, (LAYER, MODEL, TRAIN)),
    ("heft", "HEFT", True, (MODEL,)),
    ("branch_parallel", "branch parallel", True, (MODEL,)),
    ("best_ratio", "best ratio found", True, (LAYER,)),
    ("batch_parallel", "batch parallel", True, (TRAIN,)),
    ("replicas", "a copy on each", True, (STREAM,)),
    ("pipeline", "pipeline", True, (STREAM,)),
    ("adapted", "adapted to the load", True, (LOADED,)),
    ("best", "best plan found for the load", False, (LOADED,)),
    # The first of them: later there is one processor only.
    ("best", "without it from then on", False, (REMOVED,)),
    ("adapted", "one taken away", True, (REMOVED,)),
)
"""What two processors may do with a case: role, title, whether it is ours, what work it is for."""


def together(runtimes: Sequence[str]) -> list[Contender]:
    """Both processors of a case together, by different plans, and each of them alone.

    They take turns in one process: none of them computes while another one does, and processors,
    model and measured costs are there once.
    """
    return [
        Contender(
            title,
            "bench.peers.coexec_together",
            ours=ours,
            kinds=tuple(f"{TOGETHER}{pair}.{what}" for pair in _pairs(runtimes) for what in whats),
            beside_us=True,
            worker="together",
            role=role,
        )
        for role, title, ours, whats in ROLES
    ]


BOTH = (("first", "first on both cores"), ("second", "second on both cores"))
"""A runtime that has the cores of both processors: what this device gives to anyone."""


def on_both_cores(runtimes: Sequence[str]) -> list[Contender]:
    """Each runtime of a pair with the cores of both.

    They are another process: PoCL makes its threads once, for a part of the cores or for all.
    """
    kinds = tuple(
        f"{TOGETHER}{pair}.{what}" for pair in _pairs(runtimes) for what in (LAYER, MODEL, TRAIN)
    )
    return [
        Contender(
            title,
            "bench.peers.coexec_both",
            ours=True,
            kinds=kinds,
            beside_us=True,
            worker="both cores",
            role=role,
        )
        for role, title in BOTH
    ]


def _pairs(runtimes: Sequence[str]) -> list[str]:
    """Names of the pairs of processors that these runtimes are enough for."""
    return [_short(spec) for spec in runtimes] + ([EQUAL] if len(runtimes) > 1 else [])


def planners() -> list[Contender]:
    """Every policy by itself, all fast ones, and the search for the best plan of a small graph."""
    kinds = {**dict.fromkeys((*POLICIES, AUTO), "fast"), EXACT: "exact"}
    return [
        Contender(
            f"{policy} (all of these)" if policy == AUTO else policy,
            "bench.peers.coexec_planning",
            "",
            {"policy": policy},
            True,
            kinds=(f"{PLANNING}{kind}",),
        )
        for policy, kind in kinds.items()
    ]
