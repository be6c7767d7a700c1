"""One Python function for each signature of kernels, where PyOpenCL would make one per kernel.

PyOpenCL writes, caches on disk and compiles a function that sets a kernel's arguments whenever it
makes a kernel object: a quarter of a millisecond, for hundreds of objects of a few signatures. The
function depends on the signature alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache, wraps
from typing import Any

import pyopencl as cl
from pyopencl import invoker

Invokers = tuple[Callable[..., Any], Callable[..., Any]]
"""What enqueues a kernel with arguments, and what only sets them."""


def remembering(generate: Callable[..., Invokers]) -> Callable[..., Invokers]:
    """``generate``, called once for each combination of arguments (``devs`` may be a list)."""
    once = cache(generate)

    @wraps(generate)
    def remembered(*args: Hashable, devs: Sequence[cl.Device], **options: Hashable) -> Invokers:
        return once(*args, devs=tuple(devs), **options)

    return remembered


def remember_invokers() -> None:
    """Make PyOpenCL remember the functions of each signature; calling it again changes nothing."""
    if not hasattr(invoker.generate_enqueue_and_set_args, "__wrapped__"):
        invoker.generate_enqueue_and_set_args = remembering(invoker.generate_enqueue_and_set_args)
