"""Every error a user can cause, as one tree.

DeployError                 exit 1
├── RecipeError             exit 2   a flag, a TOML key, a target or an output folder is not usable
├── ModelError              exit 1   the ONNX file can't be taken as it is
├── CalibrationError        exit 1   samples, labels or ranges don't fit
├── BuildError              exit 1   the vendor's compiler refused, or an engine was fed wrongly
│   └── MissingBackendError exit 1   a vendor library isn't installed
├── BundleError             exit 1   a bundle on disk is damaged, changed or not a bundle
└── ParityError             exit 3   the engine doesn't compute what the model computes

A message says what was observed, on which file or value, and what to do next, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class DeployError(Exception):
    """Something the user can mend; the message is one line and says how."""

    exit_code = 1


class RecipeError(DeployError):
    exit_code = 2


class ModelError(DeployError):
    pass


class CalibrationError(DeployError):
    pass


class BuildError(DeployError):
    pass


class MissingBackendError(BuildError):
    pass


class BundleError(DeployError):
    pass


class ParityError(DeployError):
    """`evidence` is the folder with the bundle of the failed build, where there is one."""

    exit_code = 3

    def __init__(self, message: str, evidence: Path | None = None) -> None:
        super().__init__(message)
        self.evidence = evidence


def nearest(wrong: str, allowed: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for a close name, else the empty string."""
    close = difflib.get_close_matches(wrong, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """A vendor's message, folded to one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
