"""Finding OpenCL runtimes: PoCL and Intel's from pip, oclgrind from Debian, the system's own.

An OpenCL loader reads ``.icd`` files, each naming a driver library. Wheels cannot put theirs where
the loader looks (Intel's registers a path of its build machine), so before the first OpenCL call
coexec gathers every driver it can find in a folder of its own and points the loader there.
A folder that the user named in ``OCL_ICD_VENDORS`` is left alone.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from coexec.base.cache import keep
from coexec.base.errors import SaveError
from coexec.base.knobs import CACHE_DIR, OCL_ICD_VENDORS, OCLGRIND, cache_dir
from coexec.processors.opencl.pocl_cpu import name_unknown_cpu

SYSTEM_VENDORS = (Path("/etc/OpenCL/vendors"), Path(sys.prefix) / "etc" / "OpenCL" / "vendors")
INTEL_NEEDS = ("libintlc.so.5", "libimf.so", "libirng.so", "libsvml.so")
OCLGRIND_DRIVER = Path("/usr/lib/oclgrind/liboclgrind-rt-icd.so")


@functools.cache
def prepare_loader() -> None:
    """Point the OpenCL loader at every runtime of this machine; only the first call acts."""
    if not sys.platform.startswith("linux"):
        return
    if _user_chose_vendors():
        # The loader inside the PyOpenCL wheel finds the PoCL beside it all the same.
        _name_unknown_cpus(_wheel_drivers())
        return
    drivers = sorted({*_wheel_drivers(), *_intel_drivers(), *_system_drivers(), *_oclgrind()})
    _name_unknown_cpus(drivers)
    if drivers:
        os.environ["OCL_ICD_VENDORS"] = str(_vendor_folder(drivers))


def pocl_libraries() -> list[str]:
    """PoCL's libraries as the loader finds them."""
    chosen = Path(OCL_ICD_VENDORS.text)
    named = (n for icd in sorted(chosen.glob("*.icd")) for n in _lines(icd))
    return sorted({n for n in (*_wheel_drivers(), *named) if "libpocl" in Path(n).name})


def _name_unknown_cpus(drivers: list[str]) -> None:
    for driver in drivers:
        if "libpocl" in Path(driver).name and Path(driver).exists():
            name_unknown_cpu(Path(driver))


def _user_chose_vendors() -> bool:
    """Whether ``OCL_ICD_VENDORS`` names a folder not ours (a parent process may set ours)."""
    chosen = OCL_ICD_VENDORS.text
    return bool(chosen) and not Path(chosen).is_relative_to(cache_dir() / "icd")


def _vendor_folder(drivers: list[str]) -> Path:
    """A folder with one ``.icd`` per driver; its name is their hash, so that nothing is stale.

    It is in the cache, or, where that cannot be written, one that this process removes at its end.

    Raises:
        SaveError: neither can be written; the message names the way out.
    """
    digest = hashlib.sha256("\n".join(drivers).encode()).hexdigest()[:16]
    folder = cache_dir() / "icd" / digest
    files = {folder / f"{index}.icd": driver for index, driver in enumerate(drivers)}
    missing = [file for file in files if not file.exists()]
    if all(keep(file, functools.partial(_write_line, files[file])) for file in missing):
        return folder
    try:
        folder = Path(tempfile.mkdtemp(prefix="coexec-icd-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for file, driver in files.items():
            (folder / file.name).write_text(f"{driver}\n")
    except OSError as error:
        raise SaveError(
            f"no folder takes the files by which the OpenCL loader finds its drivers, not even "
            f"{tempfile.gettempdir()} ({error.strerror or error}): name one that can be written in "
            f"{CACHE_DIR.name}"
        ) from error
    return folder


def _write_line(text: str, file: BinaryIO) -> None:
    file.write(text.encode() + b"\n")


def _wheel_drivers() -> list[str]:
    """Drivers inside the PyOpenCL wheel (``pocl-binary-distribution`` unpacks PoCL there)."""
    spec = importlib.util.find_spec("pyopencl")
    if spec is None or not spec.submodule_search_locations:
        return []
    folder = Path(next(iter(spec.submodule_search_locations))) / ".libs"
    return [str(folder / name) for icd in sorted(folder.glob("*.icd")) for name in _lines(icd)]


def _system_drivers() -> list[str]:
    """Drivers the system registered; entries with a path that does not exist are left out."""
    names = [n for v in SYSTEM_VENDORS if v.is_dir() for i in v.glob("*.icd") for n in _lines(i)]
    return [n for n in names if "/" not in n or Path(n).exists()]


def _intel_drivers() -> list[str]:
    """Intel's CPU runtime from pip; the libraries it needs are loaded here, in their order."""
    library = Path(sys.prefix) / "lib"
    driver = library / "libintelocl.so"
    if not driver.exists() or not all((library / name).exists() for name in INTEL_NEEDS):
        return []
    for name in INTEL_NEEDS:
        ctypes.CDLL(str(library / name), ctypes.RTLD_GLOBAL)
    return [str(driver)]


def _oclgrind() -> list[str]:
    """The checking interpreter, with data races on; only if asked for: it brings another LLVM."""
    if not (OCLGRIND.number and OCLGRIND_DRIVER.exists()):
        return []
    os.environ.setdefault("OCLGRIND_DATA_RACES", "1")
    return [str(OCLGRIND_DRIVER)]


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text().splitlines() if line.strip()]
