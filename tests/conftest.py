"""What holds for all tests."""

from __future__ import annotations

import logging


def _without_traceback(record: logging.LogRecord) -> bool:
    """An error that nobody fetched is logged whenever garbage is collected. Printing its traceback
    parses source, and CPython 3.11 fails where that happens while pytest parses some itself
    ("AST constructor recursion depth mismatch"), which ends the run."""
    if record.exc_info and record.exc_info[1] is not None:
        record.msg, record.exc_info = f"{record.msg}\n{record.exc_info[1]!r}", None
    return True


logging.getLogger("asyncio").addFilter(_without_traceback)
