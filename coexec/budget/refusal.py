"""What is said when no training step fits a budget: what would, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.base.errors import MemoryBudgetError
from coexec.base.units import bytes_text
from coexec.budget.settings import holders
from coexec.budget.techniques import Question
from coexec.budget.variants import Found

NAMED = 6
"""Tensors that a refusal names."""
NOTHING = "it changes nothing of this step"
"""Why a technique was not used, which nobody needs to be told."""


def refusal(
    question: Question, budget: int, found: Found, least: int, refused: Mapping[str, str]
) -> MemoryBudgetError:
    """No step fits ``budget`` bytes; ``found`` is about the lowest, ``least`` one that is kept.

    ``refused`` are techniques with the reason why they cannot be used.
    """
    plain, problem = found.variant.chain()[0], found.variant.problem
    needed = found.variant.least
    held = holders(found.variant.beside, problem, found.setting.recompute)
    named = ", ".join(f"{name} ({bytes_text(nbytes)})" for name, nbytes in held[:NAMED])
    reasons = {name: why for name, why in refused.items() if why != NOTHING}
    unused = "".join(f"; {name} cannot be used: {why}" for name, why in reasons.items())
    more = "" if question.lossy else "; --memory-lossy would allow what loses precision"
    return MemoryBudgetError(
        f"no training step fits {bytes_text(budget)}: the plain one takes "
        f"{bytes_text(plain.peak)}, the smallest found {bytes_text(least)} (no plan of "
        f"these techniques takes less than {bytes_text(needed)}). In the way: {named}"
        f"{unused}{more}. Give --memory {_rounded(least)} or a smaller batch",
        least,
    )


def _rounded(nbytes: int) -> str:
    """The budget that takes so many bytes, in whole MiB (KiB below one)."""
    unit, name = (2**20, "MiB") if nbytes >= 2**20 else (2**10, "KiB")
    return f"{-(-nbytes // unit)}{name}"
