"""What is released: backbones, the encoder, the saved hasher, its ONNX export."""
