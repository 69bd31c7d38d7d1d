"""finish.py: the modules of deploy/on_device as one Python 3.8 file, which a device runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = "deploy.on_device"
_MAIN = "finish_main"
_PYTHON = (3, 8)
_OTHERS = ("numpy",)
# said in a line before the first import can end in a traceback
_NEEDS = """
import sys

if sys.version_info < (3, 8):
    sys.exit("error: Python {}.{}; finish.py needs 3.8 or newer".format(*sys.version_info[:2]))
try:
    import numpy
except ImportError as missing:
    sys.exit("error: {}; finish.py needs numpy: pip install numpy".format(missing))
"""


def finish_script() -> str:
    """The whole script, the same text every time."""
    folder = Path(__file__).parents[1] / "on_device"
    paths = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
    sources = {path.stem: path.read_text(encoding="utf-8") for path in paths}
    try:
        release = version("onnx-deploy")
    except PackageNotFoundError:
        release = "of a source tree"
    made_of = f"# onnx-deploy {release} (Apache-2.0): its {_PACKAGE} as one file; change it there."
    return stitched(sources, _MAIN, made_of)


def stitched(sources: Mapping[str, str], main: str, made_of: str = "") -> str:
    """Modules by name as one, every module behind those it imports; `main` has `main(argv)`.

    made_of: a comment for the top. ValueError where one file can't hold them all: a name that two
    define, an import that isn't at the top of its module, or newer syntax.
    """
    modules = {name: _Module(name, text) for name, text in sources.items()}
    order = _order(modules, main)
    _check_names([modules[name] for name in order])
    imports = {line for name in order for line in modules[name].outside} | {"import sys"}
    about = ast.get_docstring(modules[main].tree) or ""
    parts = [
        f'#!/usr/bin/env python3\n"""{about}\n"""\n\n{made_of}',
        "from __future__ import annotations",
        _NEEDS,
        _merged(imports),
        *(modules[name].body() for name in order),
        'if __name__ == "__main__":\n    sys.exit(main())',
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


@dataclass(frozen=True)
class _Module:
    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        try:
            return ast.parse(self.text, f"{self.name}.py", feature_version=_PYTHON)
        except SyntaxError as error:
            raise ValueError(f"{self.name}.py: not Python 3.8: {error}") from None

    @property
    def imports(self) -> list[ast.Import | ast.ImportFrom]:
        return [node for node in self.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]

    @cached_property
    def inside(self) -> dict[str, list[str]]:
        """Names it imports from the package, by module."""
        found: dict[str, list[str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import) and any(_is_ours(a.name) for a in node.names):
                raise ValueError(f"{self.name}.py: `{ast.unparse(node)}`; import names from it")
            if not isinstance(node, ast.ImportFrom) or not _is_ours(node.module or ""):
                continue
            if node not in self.imports or any(alias.asname for alias in node.names):
                raise ValueError(
                    f"{self.name}.py: `{ast.unparse(node)}`; import it at the top, under its name"
                )
            module = (node.module or "").removeprefix(f"{_PACKAGE}.")
            found.setdefault(module, []).extend(alias.name for alias in node.names)
        return found

    @property
    def outside(self) -> Iterator[str]:
        """Its other imports, one name each."""
        for node in self.imports:
            if isinstance(node, ast.Import):
                yield from (f"import {_spelled(alias)}" for alias in node.names)
            elif node.module != "__future__" and not _is_ours(node.module or ""):
                yield from (f"from {node.module} import {_spelled(alias)}" for alias in node.names)

    @property
    def names(self) -> dict[str, str]:
        """What it defines at the top, and what it imports from outside with the import."""
        found = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = ""
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                stored = (n for target in targets for n in ast.walk(target))
                found.update({n.id: "" for n in stored if isinstance(n, ast.Name)})
        return found | {line.split()[-1]: line for line in self.outside}

    def body(self) -> str:
        """Its text without docstring and imports, under a line that names it."""
        lines = self.text.splitlines()
        dropped: set[int] = set()
        documented = ast.get_docstring(self.tree) is not None
        for node in (*self.tree.body[:1][: int(documented)], *self.imports):
            dropped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
        kept = "\n".join(line for i, line in enumerate(lines) if i not in dropped)
        about = (ast.get_docstring(self.tree) or "").partition("\n\n")[0].splitlines()
        title = "\n".join(f"# {line}" for line in (f"--- {self.name}.py", *about))
        return f"{title}\n\n{kept.strip()}\n"


def _order(modules: Mapping[str, _Module], main: str) -> list[str]:
    """Every module behind what it imports; those nobody needs are left out."""
    needs: dict[str, list[str]] = {}
    waiting = [main]
    while waiting:
        name = waiting.pop()
        if name in needs:
            continue
        if name not in modules:
            raise ValueError(f"no module {name}.py in {_PACKAGE}")
        needs[name] = sorted(modules[name].inside)
        waiting += needs[name]
    try:
        return list(TopologicalSorter(dict(sorted(needs.items()))).static_order())
    except CycleError as error:
        raise ValueError(f"modules import each other: {' -> '.join(error.args[1])}") from None


def _check_names(modules: list[_Module]) -> None:
    """Every name is defined once, and what one imports of another is there."""
    seen: dict[str, tuple[str, str]] = {}
    defined = {module.name: module.names for module in modules}
    for module in modules:
        for other, names in module.inside.items():
            absent = [name for name in names if name not in defined[other]]
            if absent:
                raise ValueError(f"{module.name}.py: {other}.py has no {', '.join(absent)}")
        for name, line in module.names.items():
            other, before = seen.setdefault(name, (module.name, line))
            if other != module.name and (line != before or not line):
                raise ValueError(f"{other}.py and {module.name}.py both define {name}; rename one")


def _is_ours(module: str) -> bool:
    return module == "deploy" or module.startswith("deploy.")


def _spelled(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _merged(imports: Iterable[str]) -> str:
    """Import statements, one per module: the library before other packages."""
    plain = {line for line in imports if line.startswith("import ")}
    names: dict[str, list[str]] = {}
    for line in sorted(set(imports) - plain):
        module, _, name = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, []).append(name)
    lines = [*plain, *(f"from {module} import {', '.join(n)}" for module, n in names.items())]
    return "\n".join(sorted(lines, key=_import_key))


def _import_key(line: str) -> tuple[bool, bool, str]:
    """The library before other packages, `import` before `from`."""
    return line.split()[1].split(".")[0] in _OTHERS, line.startswith("from"), line
