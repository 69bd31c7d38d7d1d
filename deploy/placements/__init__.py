"""Placements: where Q/DQ may sit, one vendor per file, a function named like the file."""
