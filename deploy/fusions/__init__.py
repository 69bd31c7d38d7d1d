"""Fusions: one graph rewrite per file, a function named like the file."""
