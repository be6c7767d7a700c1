"""Every environment switch coexec reads, in one table; nothing else reads ``os.environ``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Knob:
    """One environment variable: its name, its default and what it does."""

    name: str
    default: str
    meaning: str

    @property
    def text(self) -> str:
        return os.environ.get(self.name, self.default)

    @property
    def number(self) -> int:
        try:
            return int(self.text)
        except ValueError:
            return int(self.default)


DEBUG = Knob("DEBUG", "0", "2 prints one line per kernel launch and copy")
CACHE_DIR = Knob(
    "COEXEC_CACHE_DIR",
    "",
    "folder of compiled programs; empty: ~/.cache/coexec (or XDG_CACHE_HOME)",
)
XDG_CACHE_HOME = Knob("XDG_CACHE_HOME", "", "the user's cache folder (read, never written)")
OCL_ICD_VENDORS = Knob(
    "OCL_ICD_VENDORS", "", "folder of OpenCL .icd files (standard); set: coexec leaves it alone"
)
OCLGRIND = Knob(
    "COEXEC_OCLGRIND", "0", "1 loads the checking interpreter oclgrind as opencl:oclgrind (slow)"
)
BUILD_APART = Knob(
    "COEXEC_BUILD_APART",
    "16",
    "from this many new kernel programs on, another process compiles them: a compiler takes "
    "hundreds of MiB, as long as its process lives; 0: never",
)
SEARCH_APART = Knob(
    "COEXEC_SEARCH_APART",
    "64",
    "from this many nodes of a model on, another process searches how its steps keep a budget of "
    "memory: the heap of one that has searched stays tens of MiB larger; 0: never",
)
RUN_SECONDS = Knob(
    "COEXEC_RUN_SECONDS",
    "20",
    "for so many seconds the process that searches for steps within a budget of memory runs those "
    "that are predicted to be about as fast, before a training begins; 0: predictions decide",
)
PROCESSOR = Knob("COEXEC_PROCESSOR", "opencl", "processor used where none is named")


def cache_dir() -> Path:
    """Folder for compiled programs and tuning results (it may not exist yet)."""
    if CACHE_DIR.text:
        return Path(CACHE_DIR.text)
    home = Path(XDG_CACHE_HOME.text) if XDG_CACHE_HOME.text else Path.home() / ".cache"
    return home / "coexec"
