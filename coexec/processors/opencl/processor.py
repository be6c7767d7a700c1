"""The OpenCL processor: the run-time device plus support checks and compilation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import pyopencl as cl

from coexec.base.errors import ProcessorError
from coexec.core.processor import Executable, Processor, Support
from coexec.core.types import OpCall, Region
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.byte_dots import byte_dots
from coexec.processors.opencl.choose import Chooser, by_default, named
from coexec.processors.opencl.compile import compile_region
from coexec.processors.opencl.device import OpenCLDevice
from coexec.processors.opencl.digest import code_digest
from coexec.processors.opencl.executable import OpenCLExecutable
from coexec.processors.opencl.family import DeviceFacts
from coexec.processors.opencl.fusion.dynamic_integers import dynamic_calls, has_integer_products
from coexec.processors.opencl.fusion.integer_prices import integer_calls, share_on_bytes
from coexec.processors.opencl.fusion.integers import has_integer_layers
from coexec.processors.opencl.fusion.operators import LAYERS, ON_BYTES
from coexec.processors.opencl.fusion.taken_in import taken_in
from coexec.processors.opencl.options import DEFAULT_OPTIONS, DeviceOptions
from coexec.processors.opencl.table import KERNELS
from coexec.processors.opencl.together import together
from coexec.processors.opencl.tuning.lookup import TunedChooser, chooser_of_text, load_tuned

log = logging.getLogger(__name__)

NOT_COVERED = "no kernel on bytes for its weights, groups or axes"


class OpenCLProcessor(OpenCLDevice, Processor):
    """An OpenCL device that compiles regions for itself; ``choose`` decides on their kernels."""

    pauses = True

    def __init__(
        self, name: str, device: cl.Device, options: DeviceOptions = DEFAULT_OPTIONS
    ) -> None:
        super().__init__(name, device, options)
        self.choose: Chooser = chooser_of(options, self.facts)

    def supports(self, call: OpCall) -> Support:
        op = OPERATORS.get(call.identifier)
        if op is not None and op.view:
            # No kernel touches the elements: any type of fixed size will do.
            return Support(call.input(0).dtype.kind != "O", "strings have no fixed size")
        family = KERNELS.get(call.identifier)
        if family is None:
            return Support(False, "no kernel")
        # No other variant takes what this one refuses; which one is best is asked when compiling.
        refusal = family.naive.applies(call, self.facts)
        return Support(refusal is None, refusal or "")

    def code_of(self, call: OpCall) -> str:
        facts = self.facts_for(Region.alone(call))
        return code_digest(call, facts, self.choose, self._fusing)

    def fused(self, region: Region) -> Mapping[str, OpCall | None]:
        if not self._fusing:
            return {}
        return {**taken_in(region, self.facts_for(region)), **self._on_bytes(region)}

    def _on_bytes(self, region: Region) -> Mapping[str, OpCall | None]:
        """What computes nodes on bytes, as :meth:`fused` tells it."""
        facts = self.facts_for(region)
        return {**integer_calls(region, facts), **dynamic_calls(region, facts)}

    def fused_share(self, made: OpCall, share: OpCall) -> OpCall | None:
        return share_on_bytes(made, share) if made.identifier in LAYERS else None

    def in_floats(self, region: Region, layers: Mapping[str, str]) -> Mapping[str, str]:
        made = self._on_bytes(region) if self._fusing else {}
        usual = NOT_COVERED
        if not self._fusing:
            usual = "kernels=naive computes in floats"
        elif self.facts_for(region).dots == "none":
            usual = "the device has no dot products of bytes"
        return {name: why or usual for name, why in layers.items() if name not in made}

    def choices(self) -> str:
        return self.choose.text if isinstance(self.choose, TunedChooser) else ""

    def choose_by(self, choices: str) -> None:
        self.choose = chooser_of_text(choices, self.name) if choices else by_default

    @property
    def _fusing(self) -> bool:
        return self.options.kernels == "best"

    def compile(self, region: Region) -> Executable:
        executable = self.lay_out(region)
        if region.sparing and self.programs.keeps_much:
            few = together(executable)
            try:
                self.prepare(few)
                return few
            except ProcessorError as error:
                log.warning("%s: each kernel stays a program of its own: %s", self.name, error)
        self.prepare(executable)
        return executable

    def lay_out(self, region: Region) -> OpenCLExecutable:
        how = (self.choose, self._fusing, self.pages)
        return compile_region(region, self.facts_for(region), self.name, *how)

    def facts_for(self, region: Region) -> DeviceFacts:
        """What is known of the device, and how it multiplies bytes where a region asks for it."""
        if self.facts.unit_kind == "gpu":
            return self.facts
        on_bytes = any(node.call.identifier in ON_BYTES for node in region.nodes)
        asked = self._fusing and (has_integer_layers(region) or has_integer_products(region))
        if not on_bytes and not asked:
            return self.facts
        return replace(self.facts, dots=byte_dots(self.programs))


def chooser_of(options: DeviceOptions, facts: DeviceFacts) -> Chooser:
    """How a processor with these options chooses kernels; reads the tuned values of the device."""
    if options.kernels == "naive":
        return named("naive")
    return load_tuned(facts) if options.tuned == "on" else by_default
