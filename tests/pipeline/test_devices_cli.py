"""``coexec devices``."""

from __future__ import annotations

import re

from tests.pipeline.command import coexec


def test_devices_json() -> None:
    records = coexec("devices", "--json").record["processors"]
    by_name = {record["name"]: record for record in records}
    assert "reference" in by_name
    assert any(name.startswith("opencl") for name in by_name)
    for record in records:
        assert record["available"] is not bool(record["reason"])
        if record["available"]:
            assert record["kind"] in {"cpu", "gpu", "accelerator", "custom"}
            assert record["device"]
            assert record["driver"]
            assert record["compute_units"] >= 1
            assert isinstance(record["unified_memory"], bool)
            assert {"fp16", "fp64", "images", "svm"} <= set(record["features"])


def test_devices_for_people_say_the_same() -> None:
    text = re.sub(r"\s+", " ", coexec("devices").out)
    for record in coexec("devices", "--json").record["processors"]:
        assert record["name"] in text
        expected = record["device"] if record["available"] else record["reason"]
        assert re.sub(r"\s+", " ", expected) in text
