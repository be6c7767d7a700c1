"""Max, average and global pooling in 1, 2 and 3 dimensions, with their gradients."""

from __future__ import annotations

from coexec.ops.opdef import OpDef

OPS: tuple[OpDef, ...] = ()
