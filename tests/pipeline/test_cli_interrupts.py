"""Ctrl-C while a module is imported ends a command as at any other moment."""

from __future__ import annotations

import pytest

from coexec.cli import devices
from tests.pipeline.command import coexec


def test_ctrl_c_in_the_import_of_a_module_in_cpp_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def import_fails() -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(devices, "list_processors", import_fails)
    done = coexec("devices")
    assert (done.status, done.out, done.err) == (130, "", "interrupted\n")


def test_a_module_that_cannot_be_imported_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_fails() -> None:
        raise ImportError("no such library") from OSError()

    monkeypatch.setattr(devices, "list_processors", import_fails)
    with pytest.raises(ImportError, match="no such library"):
        coexec("devices")
