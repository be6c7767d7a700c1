"""The OpenCL processor: the run-time device plus support checks and compilation."""

from __future__ import annotations

from coexec.core.processor import Executable, Processor, Support
from coexec.core.types import OpCall, Region
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.device import OpenCLDevice
from coexec.processors.opencl.table import KERNELS


class OpenCLProcessor(OpenCLDevice, Processor):
    """An OpenCL device that compiles regions for itself."""

    def supports(self, call: OpCall) -> Support:
        op = OPERATORS.get(call.identifier)
        if op is not None and op.view:
            # No kernel touches the elements: any type of fixed size will do.
            return Support(call.input(0).dtype.kind != "O", "strings have no fixed size")
        family = KERNELS.get(call.identifier)
        if family is None:
            return Support(False, "no kernel")
        variant, reason = family.choose(call, self.facts)
        return Support(variant is not None, reason)

    def compile(self, region: Region) -> Executable:
        variant = "naive" if self.options.kernels == "naive" else None
        executable = compile_region(region, self.facts, self.name, variant)
        self.prepare(executable)
        return executable
