"""NVIDIA's devices: built for and judged here where the device isn't, finished and timed there."""
