"""A fusion of the user's own, run so that its mistakes are told as what they are."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.errors import RecipeError, one_line


@contextmanager
def blamed(name: str, file: Path | None) -> Iterator[None]:
    """RecipeError with the place in the user's file for whatever goes wrong; None: one of ours."""
    if file is None:
        yield
        return
    try:
        yield
    # their code may raise anything, and end the process
    except (Exception, SystemExit) as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        where = f"{file}:{lines[-1]}" if lines else str(file)
        raise RecipeError(
            f"{where}: fusion {name!r} failed: {type(error).__name__}: {one_line(error, 300)}; "
            "mend it, or take it out of the target's fusions"
        ) from error
