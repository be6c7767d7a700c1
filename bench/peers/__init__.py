"""What workers run: one module per library, each with ``open_peer(options) -> Peer``.

A module here imports its own library, NumPy and ONNX; only coexec's own may import coexec.
"""
