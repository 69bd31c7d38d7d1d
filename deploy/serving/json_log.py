"""One JSON object per line on standard error: time, level, message, and what belongs to it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_OURS = "deploy.serving"


class JsonLines(logging.Formatter):
    """A record as one line; `extra={"fields": {…}}` adds keys."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def start(stream: TextIO | None = None) -> logging.Handler:
    """Write the server's log and uvicorn's and grpc's warnings; `stop` takes the handler."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in ((_OURS, logging.INFO), ("uvicorn", logging.ERROR), ("grpc", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False
    return handler


def stop(handler: logging.Handler) -> None:
    """Take the handler away again, for a process that goes on."""
    for name in (_OURS, "uvicorn", "grpc"):
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.propagate = True
