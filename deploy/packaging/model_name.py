"""The name a model is served under: part of a path, a URL and a container's name."""

from __future__ import annotations

import re

from deploy.errors import RecipeError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def checked_name(name: str) -> str:
    """That name; RecipeError where it could lead out of a folder or break a URL."""
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"{name!r} can't be the name of a served model: up to 64 letters, digits, '_', '-' and "
            "'.', the first a letter or digit; give another --name"
        )
    return name
