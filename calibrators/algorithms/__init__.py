"""Calibrators, one per file: arrays in (`observe`, `merge`), a range out (`range`)."""
