"""Backends, one vendor per file: `build(model, settings, precision)` and `load(folder, …)`."""
