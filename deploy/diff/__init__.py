"""Two bundles side by side: what went in, what was decided, what came out, what of it matters."""
