"""A page in headless Chromium: what it became, and that nothing reached the console."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--virtual-time-budget=4000", "--enable-logging=stderr", "--dump-dom"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
_WRONG = ("CONSOLE", "Uncaught", "SyntaxError", "ReferenceError", "TypeError", "violates")


def opened(page: str, folder: Path) -> str:
    """The page's elements after its scripts ran; AssertionError for a line on the console."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [str(shutil.which("chromium")), *_FLAGS, f"--user-data-dir={folder}/user", file.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not [line for line in done.stderr.splitlines() if any(w in line for w in _WRONG)]
    return done.stdout
