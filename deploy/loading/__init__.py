"""What makes any ONNX file the checked model that the line starts from."""
