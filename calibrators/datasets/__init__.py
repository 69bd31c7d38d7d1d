"""One way to store samples per file: `accepts(uri)` and `open(uri, spec)`, found by file name."""
