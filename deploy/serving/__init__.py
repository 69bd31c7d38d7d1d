"""A bundle behind HTTP and gRPC: the Open Inference Protocol (V2) around an OpenVINO engine.

Installs and runs without onnx: of this project it needs deploy.errors, deploy.files and
deploy.artifacts.bundle, nothing else.
"""
