"""SqueezeNet 1.1. Source: Iandola et al., "SqueezeNet", 2016, and the authors' release 1.1."""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, conv, dropout, global_pool, image_shape, max_pool, relu

FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
FIRES |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}
"""Position among the features: (channels in, squeezed to, expanded to on each of two branches)."""

POOLS = (2, 5, 8)


def squeezenet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int | None = 224,
    residual: bool = False,
    dropout_ratio: float = 0.5,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``image_size=None`` leaves height and width symbolic.

    ``residual``: blocks that keep their channels are added to what they start from.
    """
    net = Net("squeezenet", image_shape(batch, 3, image_size), seed=seed)
    h = relu(net, conv(net, net.x, "features.0", (3, 64), (3, 3), stride=2), "features.1")
    for index in range(2, 13):
        name = f"features.{index}"
        if index in POOLS:
            h = max_pool(net, h, name, (3, 3), stride=2, ceil=True)
        else:
            x, h = h, _fire(net, h, name, FIRES[index])
            if residual and FIRES[index][0] == 2 * FIRES[index][2]:
                h = net.op("Add", f"{name}.add", [h, x])
    h = dropout(net, h, "classifier.dropout", dropout_ratio)
    h = relu(net, conv(net, h, "classifier.conv", (512, classes), (1, 1)), "classifier.relu")
    return net.finish(global_pool(net, h), classes)


def _fire(net: Net, x: ir.Value, name: str, widths: tuple[int, int, int]) -> ir.Value:
    inputs, squeezed, expanded = widths
    s = relu(
        net, conv(net, x, f"{name}.squeeze", (inputs, squeezed), (1, 1)), f"{name}.squeeze.relu"
    )
    branches = [
        relu(
            net,
            conv(net, s, f"{name}.expand{k}x{k}", (squeezed, expanded), (k, k), pad=k // 2),
            f"{name}.expand{k}x{k}.relu",
        )
        for k in (1, 3)
    ]
    return net.op("Concat", f"{name}.concat", branches, {"axis": 1})
