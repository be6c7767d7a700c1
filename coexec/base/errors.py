"""Every error coexec raises on purpose: it names the culprit and says what to do."""

from __future__ import annotations


class CoexecError(Exception):
    """Base of all errors a user can cause or meet; the command line prints it and exits with 1."""

    exit_status = 1


class ModelError(CoexecError):
    """The ONNX file is unreadable, inconsistent or unsafe."""


class UnsupportedOperators(ModelError):
    """Operators without an OpDef, all listed at once with their nodes."""


class ShapeError(ModelError):
    """A node's operands do not fit its operator's shape rule."""


class DataError(CoexecError):
    """Input data does not fit the model: name, shape, dtype or label range."""


class ProcessorError(CoexecError):
    """A processor spec is unknown, the processor is absent, or it failed while running."""


class DeviceMemoryError(ProcessorError):
    """An allocation does not fit a processor's memory, or the limit that was set for it."""


class GradientError(CoexecError):
    """The model, or the part of it that was asked for, cannot be differentiated."""


class NonFiniteLoss(CoexecError):
    """The loss became NaN or infinite; the message names the step and the first offending node."""


class MemoryBudgetError(CoexecError):
    """Nothing fits a memory budget; ``least_bytes`` is the smallest peak that was found."""

    def __init__(self, message: str, least_bytes: int) -> None:
        super().__init__(message)
        self.least_bytes = least_bytes


class CheckpointError(CoexecError):
    """A checkpoint is damaged or belongs to another model or optimizer."""


class SaveError(CoexecError):
    """A file could not be written; what stood there before is intact."""


class FallbackWarning(UserWarning):
    """Nodes run on another processor than the one asked for; the message is the table of them."""


class ModelWarning(UserWarning):
    """A model says something about itself that is not so; what it computes is believed."""


class UsageError(CoexecError):
    """A flag or argument makes no sense; the message names it."""

    exit_status = 2
