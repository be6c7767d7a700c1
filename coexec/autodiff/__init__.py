"""From a model to a training step: both are ONNX graphs."""
