"""Corrections, one per file: what rounding did to a layer, taken back in weights or bias."""
