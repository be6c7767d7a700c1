"""One plug-in for every ONNX Runtime execution provider: CPU, and NPUs and GPUs by name."""
