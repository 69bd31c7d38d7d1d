"""Boxes in pictures, and average precision over them: what detectors are judged by."""
