"""Waiting for an event without helping the device.

A driver may let the thread that waits execute kernels itself. That is fine on a whole CPU; but of a
part of it, restricted to K cores, it makes K + 1, and the one more is a core that another processor
counts on (measured with Intel's runtime: twice the speed of one core for a sub-device of one core,
whenever it was waited for). So for parts the driver is asked to call back, at about 50 us a wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from select import select

import pyopencl as cl

from coexec.processors.opencl.options import DeviceOptions

Block = Callable[[cl.CommandQueue, cl.Event], None]
PATIENCE_NS = 1_000_000
"""How long a thread asks before it sleeps."""


def way_to_wait(device: cl.Device, options: DeviceOptions) -> Block:
    """How to wait for commands of a device: idle if it is a part of one, by its options.

    A whole device may have all cores of its options, too.
    """
    is_part = bool(options.cores) and device.parent_device is not None
    return wait_idle if is_part else wait_helping


def wait_helping(_queue: cl.CommandQueue, event: cl.Event) -> None:
    """Block until a command is done, as the driver does it.

    Raises:
        cl.Error: the command failed.
    """
    event.wait()


def wait_idle(queue: cl.CommandQueue, event: cl.Event) -> None:
    """Block until a command is done; the thread sleeps meanwhile, whatever the driver.

    Raises:
        cl.Error: the command failed.
    """
    queue.flush()
    if event.command_execution_status > cl.command_execution_status.COMPLETE:
        done = threading.Event()
        event.set_callback(cl.command_execution_status.COMPLETE, lambda _status: done.set())
        done.wait()
    event.wait()  # it is over: this only says how


def wait_awake(queue: cl.CommandQueue, event: cl.Event) -> None:
    """Return as soon as a command is done: by asking again and again, for a while.

    What a thread that sleeps takes to wake is spared, at the price of the caller's core. Who has to
    share that core with others loses it for many milliseconds after using up a time slice, so that
    a command that takes longer than ``PATIENCE_NS`` is waited for asleep.

    Raises:
        cl.Error: the command failed.
    """
    complete = cl.command_execution_status.COMPLETE
    queue.flush()
    late = time.perf_counter_ns() + PATIENCE_NS
    while (status := event.command_execution_status) > complete:
        if time.perf_counter_ns() > late:
            wait_idle(queue, event)
            return
        select([], [], [], 0)  # lets other threads have the interpreter's lock, and does not sleep
    if status < complete:
        event.wait()
