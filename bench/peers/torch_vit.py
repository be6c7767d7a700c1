"""ViT-tiny in PyTorch under the parameter names of coexec's zoo."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as f


class Project(nn.Module):
    """x W + b with W of (in, out), as ONNX's MatMul has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return f.linear(x, self.weight.t(), self.bias)


class Attention(nn.Module):
    """Multi-head self-attention by PyTorch's own fused function."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Project(features, 3 * features)
        self.proj = Project(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, features) -> the same."""
        batch, tokens, features = x.shape
        each = features // self.heads
        q, k, v = (
            part.reshape(batch, tokens, self.heads, each).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        mixed = f.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(batch, tokens, features)))


class Block(nn.Module):
    """Pre-norm attention and perceptron."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attn = Attention(features, heads)
        self.mlp = nn.ModuleDict(
            {"fc1": Project(features, 4 * features), "fc2": Project(4 * features, features)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, features) -> the same."""
        x = x + self.attn(self.ln1(x))
        return x + cast(Tensor, self.mlp["fc2"](f.gelu(self.mlp["fc1"](self.ln2(x)))))


class ViTTiny(nn.Module):
    """192 features, 3 heads, 12 blocks on the 4 x 4 patches of a 32 x 32 image."""

    def __init__(self, features: int = 192, heads: int = 3, depth: int = 12) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, features, 4, 4)
        self.pos_embed = nn.Parameter(torch.empty(1, 64, features))
        self.blocks = nn.Sequential(*(Block(features, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(features)
        self.head = nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, 10)."""
        x = self.patch_embed(x).flatten(2).transpose(1, 2) + self.pos_embed
        return cast(Tensor, self.head(self.norm(self.blocks(x)).mean(1)))
