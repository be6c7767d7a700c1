"""Building OpenCL programs; binaries are cached on disk: a second start does not compile."""

from __future__ import annotations

import hashlib
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import pyopencl as cl

from coexec.base.cache import keep, keeps
from coexec.base.cpu import cpu_identity
from coexec.base.errors import ProcessorError
from coexec.base.interrupts import hear_no_interrupts
from coexec.base.knobs import cache_dir
from coexec.processors.opencl.build_apart import build_apart, worth_a_process
from coexec.processors.opencl.discover import processor_name
from coexec.processors.opencl.executable import ProgramSource
from coexec.processors.opencl.slim import NOTHING, is_full, slimmed

INTEL = "Intel(R) OpenCL"
"""Platform of Intel's runtime for CPUs."""
POCL = "Portable Computing Language"
OPTIONS = ("-cl-mad-enable", "-cl-std=CL1.2")
ASKING = (INTEL, POCL)
"""Platforms that can ask for memory ahead (kernels/ask.cl). A compiler's word is not enough:
oclgrind's takes the request, and the kernel then ends the process."""
KEPT = 256
"""Programs in memory, besides those that regions use: half a MiB each on Intel's runtime."""
log = logging.getLogger(__name__)
# Drivers remark on vectorisation in the build log of every program; errors still carry the log.
warnings.filterwarnings("ignore", category=cl.CompilerWarning)


class ProgramCache:
    """Built programs of one device, in memory and on disk; counts what it had to compile.

    In memory are the latest :data:`KEPT`, or all of the latest build if those are more.
    With ``apart``, another process may compile them, and make binaries smaller
    (:mod:`coexec.processors.opencl.slim`).
    """

    def __init__(self, context: cl.Context, device: cl.Device, *, apart: bool = True) -> None:
        self.context = context
        self.device = device
        self._may_apart = apart and device.platform.name != "Oclgrind"
        self._apart = 0
        self._options = [*OPTIONS, *(("-DASKS_AHEAD",) if device.platform.name in ASKING else ())]
        # oclgrind's compiler is not safe for threads.
        self._workers = 1 if device.platform.name == "Oclgrind" else 4
        self.compiled = 0
        self.loaded = 0
        self._programs: dict[str, cl.Program] = {}
        self._lock = Lock()
        # Drivers of CPUs compile for the instructions of this very one, and tell its name only.
        unit = cpu_identity() if device.type & cl.device_type.CPU else device.name
        identity = (unit, device.name, device.version, device.driver_version)
        self._identity = "\n".join((*map(str, identity), device.platform.version, *self._options))

    @property
    def keeps_much(self) -> bool:
        """Whether the driver keeps much memory for each program, however small.

        40 small kernels take 18.8 MiB on Intel's runtime, and 1.8 in one program. On PoCL they take
        4 MiB less in few programs, but loading these takes longer.
        """
        return self.device.platform.name == INTEL

    def build(self, sources: tuple[ProgramSource, ...]) -> list[cl.Program]:
        """Programs in the order of ``sources``; missing ones are built side by side."""
        known = dict(self._programs)
        missing = {s.text: s for s in sources if s.text not in known}
        self._build_apart(list(missing.values()))
        with ThreadPoolExecutor(self._workers, initializer=hear_no_interrupts) as pool:
            known.update(zip(missing, pool.map(self._build, missing.values()), strict=True))
        self._keep({s.text: known[s.text] for s in sources})
        return [known[s.text] for s in sources]

    def _keep(self, latest: Mapping[str, cl.Program]) -> None:
        """Keep these, and let go of those that were asked for longest ago."""
        with self._lock:
            for text in latest:
                self._programs.pop(text, None)
            self._programs.update(latest)
            for text in [*self._programs][: -max(KEPT, len(latest))]:
                del self._programs[text]

    def survives(self, source: ProgramSource) -> bool:
        """Whether the driver compiles a program at all: some end the process instead.

        Another process tries it, once: both answers are kept on disk. False where none can.
        """
        file = self._file(source)
        if source.text in self._programs or file.exists():
            return True
        refusal = file.with_suffix(".refused")
        possible = self._may_apart and sys.executable and keeps(cache_dir() / "opencl")
        if refusal.exists() or not possible:
            return False
        build_apart(processor_name(self.device), [source])
        if not file.exists():
            keep(refusal, lambda _file: None)
        return file.exists()

    def slim(self, sources: Iterable[ProgramSource]) -> None:
        """Make the binaries of ``sources`` on disk smaller, if the driver takes them.

        A driver that does not take them may end the process.
        """
        full = [file for file in map(self._file, sources) if self._is_full(file)]
        nothing = self._binary(self._compile(ProgramSource("nothing", NOTHING))) if full else b""
        for file in full:
            binary = file.read_bytes()
            smaller = slimmed(binary, nothing)
            if self._kernels(smaller) != self._kernels(binary):
                raise ProcessorError(f"{self.device.name} finds other kernels in a smaller binary")
            self._write(file, smaller)

    def _build_apart(self, sources: list[ProgramSource]) -> None:
        """Let another process compile, unless this one has the compiler in its memory already."""
        absent = [source for source in sources if not self._file(source).exists()]
        full = [source for source in sources if self._is_full(self._file(source))]
        again = bool(absent) and 0 < self._apart == self.compiled
        wanted = [*absent, *full]
        count = sum(source.parts for source in wanted)
        worth = wanted and worth_a_process(count, again=again)
        if self._may_apart and worth and keeps(cache_dir() / "opencl"):
            slims = build_apart(processor_name(self.device), wanted)
            if not slims:
                keep(self._refusal, lambda _file: None)
            built = sum(self._file(source).exists() for source in absent)
            self._apart += built
            self.compiled += built

    def _is_full(self, file: Path) -> bool:
        """Whether the binary in a file could be smaller, as far as is known of the driver."""
        if self.device.platform.name != INTEL or not file.exists() or self._refusal.exists():
            return False
        return is_full(file.read_bytes())

    @property
    def _refusal(self) -> Path:
        """The file that says that this driver takes no smaller binaries."""
        digest = hashlib.sha256(self._identity.encode()).hexdigest()
        return cache_dir() / "opencl" / f"{digest[:32]}.full"

    def _kernels(self, binary: bytes) -> dict[str, int]:
        """Kernels of a binary by name, with how many arguments they take."""
        program = cl.Program(self.context, [self.device], [binary]).build()
        return {kernel.function_name: kernel.num_args for kernel in program.all_kernels()}

    def _binary(self, program: cl.Program) -> bytes:
        binaries: list[bytes] = program.get_info(cl.program_info.BINARIES)  # type: ignore[assignment]
        return binaries[0]

    def _build(self, source: ProgramSource) -> cl.Program:
        file = self._file(source)
        if file.exists():
            program = self._load(file)
            if program is not None:
                self.loaded += 1
                return program
        program = self._compile(source)
        self.compiled += 1
        self._store(file, program)
        return program

    def _compile(self, source: ProgramSource) -> cl.Program:
        try:
            # PyOpenCL's own cache would pickle next to ours; one cache is enough.
            program: cl.Program = cl.Program(self.context, source.text).build(
                self._options,
                devices=[self.device],
                cache_dir=False,  # type: ignore[arg-type]  # documented, but not in its types
            )
            return program
        except cl.Error as error:
            raise ProcessorError(
                f"kernel family {source.family!r} does not build on {self.device.name}:\n{error}"
            ) from error

    def _file(self, source: ProgramSource) -> Path:
        digest = hashlib.sha256(f"{self._identity}\n{source.text}".encode()).hexdigest()
        return cache_dir() / "opencl" / f"{source.family}-{digest[:32]}.bin"

    def _load(self, file: Path) -> cl.Program | None:
        """The program of a cached binary; a binary that the driver refuses is compiled again."""
        try:
            binary = [file.read_bytes()]
            program: cl.Program = cl.Program(self.context, [self.device], binary).build()
            return program
        except (cl.Error, OSError) as error:
            log.warning("cached program %s is unusable (%s); compiling it again", file, error)
            return None

    def _store(self, file: Path, program: cl.Program) -> None:
        self._write(file, self._binary(program))

    def _write(self, file: Path, binary: bytes) -> None:
        keep(file, lambda f: f.write(binary))
