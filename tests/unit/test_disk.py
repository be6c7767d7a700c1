"""Where a file is written whole: through links, and to what is no file."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from coexec.base.disk import write_atomically
from coexec.cli.output import require_writable


def write(path: Path) -> None:
    require_writable(path, "--out")
    write_atomically(path, lambda file: file.write(b"new"))


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    target, link = tmp_path / "models" / "v1.onnx", tmp_path / "latest.onnx"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write(link)
    assert link.readlink() == target
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_a_link_to_nothing_yet_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "latest.onnx"
    link.symlink_to("v1.onnx")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "v1.onnx").read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="no such devices")
def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "out.onnx"
    link.symlink_to(os.devnull)
    write(link)
    assert link.is_symlink()
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
