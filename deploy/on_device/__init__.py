"""What touches TensorRT and the GPU: read by the backend here and, as one file, by a device.

Python 3.8 and its library, numpy, and NVIDIA's modules inside functions: a Jetson has no more.
Top-level names differ over all modules, so that one file can hold them all.
"""
