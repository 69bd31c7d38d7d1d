"""Custom ops of the domain `onnx_deploy`: found, checked, compiled, carried beside an engine."""
