"""A cache that cannot be written ends no run: that is said once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coexec.base import cache
from coexec.base.cache import keep, keeps
from coexec.base.knobs import BUILD_APART, CACHE_DIR
from tests.pipeline.command import finish, start
from tests.pipeline.small import FEATURES, write_network
from tests.runtimes import THOROUGH


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_told", set())


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "costs" / "one.json"
    assert keep(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert keeps(tmp_path / "other")


def test_one_reason_is_told_once_for_all_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    below_a_file = tmp_path / "file"
    below_a_file.touch()
    for name in ("one", "two"):
        assert not keep(below_a_file / name / "a.json", lambda file: file.write(b"new"))
        assert not keeps(below_a_file / name)
    (told,) = caplog.messages
    assert str(below_a_file / "one" / "a.json") in told
    assert "Not a directory" in told
    assert CACHE_DIR.name in told


def test_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_space(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    assert not keep(tmp_path / "a", lambda file: file.write(b"new"))
    assert list(tmp_path.iterdir()) == []
    assert "No space left on device" in caplog.messages[0]


def test_a_command_runs_without_a_cache_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drivers are found and kernels compiled (another process would compile them for nothing)."""
    model = write_network(tmp_path / "model.onnx")
    monkeypatch.setenv(CACHE_DIR.name, str(model / "cache"))  # below a file
    monkeypatch.setenv(BUILD_APART.name, "1")
    monkeypatch.delenv("OCL_ICD_VENDORS", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = finish(start("run", model, "--shape", f"x=2x{FEATURES}", "-p", THOROUGH[0]))
    assert done.status == 0, done.err
    assert done.err.count("Not a directory") == 1
    assert "another process" not in done.err
    assert model in tmp_path.iterdir()
    assert not list(tmp_path.glob("coexec-*"))
