"""Image models: CLIP and image classifiers, of transformers or in ONNX."""
