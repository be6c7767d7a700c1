"""The environment of the peers: made once, made again when its list of packages changes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

from bench.protocol import ROOT
from coexec.base.knobs import cache_dir

STAMP = ".installed"


class InstallError(Exception):
    """pip could not install the peers; the message is pip's."""


def default() -> Path:
    """In the user's cache folder: one for all checkouts."""
    return cache_dir() / "bench-peers"


def python_of(environment: Path) -> Path:
    """The interpreter of an environment, whether or not it is there."""
    folder, name = ("Scripts", "python.exe") if sys.platform == "win32" else ("bin", "python")
    return environment / folder / name


def site_packages(python: Path) -> Path:
    """Where the environment of an interpreter has its packages; it is made with this Python."""
    folder = python.parent.parent
    return Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))


def packages() -> list[str]:
    """The extra ``bench`` of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: list[str] = project["optional-dependencies"]["bench"]
    return found


def install(environment: Path, tell: Callable[[str], None]) -> list[str]:
    """Install what is missing; returns what could not be, with pip's last line.

    Every package by itself: one that has no wheel here does not keep the others away.
    """
    wanted = packages()
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
    stamp = environment / STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return []
    if not python_of(environment).exists():
        tell(f"creating {environment}")
        venv.create(environment, with_pip=True)
    failures = []
    for package in wanted:
        tell(f"installing {package}")
        command = [str(python_of(environment)), "-m", "pip", "install", "--quiet", package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            failures.append(f"{package}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    if not failures:
        stamp.write_text(digest)
    return failures
