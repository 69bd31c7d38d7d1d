"""One file per serving format: what `deploy package --format` writes."""
