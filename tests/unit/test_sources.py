"""Digests of source code."""

from __future__ import annotations

from pathlib import Path

import pytest

from coexec.base.sources import package_digest


def package(folder: Path, name: str, code: str) -> str:
    """Its digest, once it is in a folder on the path."""
    (folder / name / "inner").mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    (folder / name / "one.py").write_text(code)
    (folder / name / "inner" / "two.py").write_text(name)
    return package_digest(name)


def test_packages_of_equal_modules_are_alike_whatever_their_inner_packages_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    first = package(tmp_path, "as_it_was", "A = 1")
    assert package(tmp_path, "just_the_same", "A = 1") == first
    assert package(tmp_path, "mended", "A = 2") != first
