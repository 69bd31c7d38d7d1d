"""Equalizations, one per file: a float graph to an equal one whose tensors lose less to INT8."""
