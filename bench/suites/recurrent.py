"""Inference with recurrent layers: short sequences of a phone's sensors and of spoken keywords."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.case import Case, Suite
from coexec import zoo
from coexec.frontend.export import save_model

LSTM, GRU = "lstm_har", "gru_kws"
LENGTHS = {LSTM: 128, GRU: 25}
"""Steps of a sequence."""


def write_files(case: Case, folder: Path) -> Mapping[str, str]:
    """The model as ONNX (path ``onnx``) and random sequences (path ``data``)."""
    name, batch, hidden = case.spec["model"], case.spec["batch"], case.spec["hidden"]
    onnx_file, data_file = folder / "model.onnx", folder / "sequences.npz"
    save_model(zoo.build(name, batch=batch, hidden=hidden), onnx_file)
    shape = (batch, *zoo.CATALOG[name].input_shape)
    np.savez(data_file, x=np.random.default_rng(0).standard_normal(shape, np.float32))
    return {"onnx": str(onnx_file), "data": str(data_file)}


def _case(model: str, batch: int, hidden: int, quick: bool = False) -> Case:
    title = f"{model.partition('_')[0].upper()} {LENGTHS[model]} x {batch}, {hidden} units"
    spec = {"model": model, "batch": batch, "hidden": hidden}
    return Case(title, "infer", spec, "steps x samples", quick=quick)


SUITE = Suite(
    "recurrent",
    "Inference with recurrent layers",
    (
        _case(LSTM, 32, 64),
        _case(LSTM, 32, 128, quick=True),
        _case(LSTM, 1, 64),
        _case(GRU, 32, 154, quick=True),
        _case(GRU, 1, 154),
    ),
    seconds=0.1,
    pause=0.2,
    turns=11,
    minutes=1.5,
    fresh=True,
    files=write_files,
    alone=True,
)
