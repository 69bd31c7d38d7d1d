"""A Docker build context against the rules of this house, without Docker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deploy.errors import DeployError, one_line
from deploy.packaging.untrusted import load_servable

FILES = ("Dockerfile", "docker-compose.yml", "prometheus.yml", "serve/requirements.txt")
LABEL = "onnx-deploy.manifest-sha256"
# what isn't in every builder, or pulls a frontend from a registry
_NEEDS_MORE = (
    (re.compile(r"^#\s*syntax\s*=", re.IGNORECASE), "a syntax line pulls a frontend"),
    (re.compile(r"^\s*(RUN|COPY)\s.*<<-?['\"]?\w"), "a heredoc needs BuildKit"),
    (re.compile(r"^\s*(COPY|ADD)\s+--link\b"), "--link needs BuildKit"),
)
_TOOLS = re.compile(r"\b(gcc|g\+\+|make|cmake|build-essential|apt-get|pip)\b")


def problems_of_context(folder: Path) -> list[str]:
    """What is missing or against the rules in a build context, one line each."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        return [f"no {name}" for name in missing]
    links = [f"{p}: a link; copy what it points to" for p in folder.rglob("*") if p.is_symlink()]
    if links:
        return links
    try:
        bundle = load_servable(folder / "bundle")
    except DeployError as error:
        return [one_line(error)]
    text = (folder / "Dockerfile").read_text(encoding="utf-8")
    found = [f"Dockerfile: {said}" for said in broken_rules(text)]
    wanted = str(bundle.manifest["manifest_sha256"])
    said = re.search(rf'{re.escape(LABEL)}="?(\w+)', text)
    if said is None or said.group(1) != wanted:
        label = said.group(1)[:12] if said else "none"
        found.append(f"Dockerfile: label {LABEL} is {label}, the bundle's is {wanted[:12]}")
    return found


def broken_rules(dockerfile: str) -> Iterator[str]:
    """What a Dockerfile lacks or has too much, in words."""
    for number, line in enumerate(dockerfile.splitlines(), start=1):
        for pattern, why in _NEEDS_MORE:
            if pattern.search(line):
                yield f"line {number}: {why}"
    stages = re.split(r"^FROM\b", dockerfile, flags=re.MULTILINE)
    if len(stages) < 3:
        yield "one stage; what only the build needs belongs in a stage of its own"
    if not re.search(r"^ARG BASE=\S+:\S+", stages[0], flags=re.MULTILINE):
        yield "no ARG BASE with a tag in front of the first FROM"
    last = stages[-1]
    users = re.findall(r"^USER\s+(\S+)", last, flags=re.MULTILINE)
    if not users or not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", users[-1]):
        yield f"USER {users[-1] if users else 'missing'}; give a number that isn't root's"
    for line in re.findall(r"^RUN\s.*", last, flags=re.MULTILINE):
        tools = _TOOLS.findall(line)
        if tools:
            yield f"the last stage runs {tools[0]}"
    if not re.search(r"^HEALTHCHECK\s", last, flags=re.MULTILINE):
        yield "no HEALTHCHECK"
