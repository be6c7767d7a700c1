"""What commands print."""

from __future__ import annotations

import math
from typing import cast

import pytest

from coexec.cli.output import console, print_json
from coexec.cli.profile import show
from coexec.report.record import ProfileRecord
from tests.profile_record import make_record


def test_what_json_lacks_becomes_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert capsys.readouterr().out == '{"a": null, "b": [null, 1.5], "c": {"d": null}}\n'


def test_tables_of_a_profile_in_a_narrow_terminal_have_whole_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = []
    for width in (40, 100):
        monkeypatch.setattr(console, "_width", width)
        show(cast(ProfileRecord, make_record()))
        out = capsys.readouterr().out
        assert "…" not in out
        headers.append([line.split() for line in out.splitlines() if line.split()[:1] == ["ms"]])
    narrow, wide = headers
    assert narrow == [["ms", "share", "roofline"]] * 3
    assert wide[0] == ["ms", "share", "runs", "GFLOP/s", "GB/s", "roofline", "bound", "by"]
