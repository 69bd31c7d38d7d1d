"""The house rules that a reviewer would otherwise have to watch: who may import whom, what lies
where, and that everything says what it is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(p for name in ("deploy", "calibrators") for p in (ROOT / name).rglob("*.py"))
NAMES = [p.relative_to(ROOT).as_posix() for p in SOURCES]
MOST_LINES = 300

# what a file may import from outside, by the longest prefix of its path
ALLOWED = {
    "calibrators/": {"numpy", "PIL"},
    "deploy/": {"numpy", "onnx", "google", "onnx_graphsurgeon", "pydantic"},
    "deploy/cli/": {"click", "rich"},
    "deploy/report/": set(),
    "deploy/artifacts/": {"numpy", "onnx"},
    "deploy/fusions/": {"numpy", "onnx", "onnx_graphsurgeon"},
    "deploy/placements/": {"numpy", "onnx", "onnx_graphsurgeon"},
    "deploy/equalizations/": {"numpy", "onnx", "onnx_graphsurgeon"},
    "deploy/corrections/": {"numpy", "onnx", "onnx_graphsurgeon"},
    "deploy/tasks/": {"numpy", "pydantic"},
    "deploy/decoders/": {"numpy", "pydantic"},
    "deploy/cluster/": {"dask", "distributed", "numpy"},
    "deploy/on_device/": {"numpy", "pycuda", "cuda"},
    "deploy/packaging/": {"google", "numpy", "openvino", "pydantic"},
    "deploy/formats/": set(),
    "deploy/serving/": {
        *("google", "hpack", "httptools", "numpy", "openvino", "prometheus_client", "starlette"),
        *("uvicorn", "uvloop"),
    },
    "deploy/simplify.py": {"numpy", "onnx", "onnxslim"},
    "deploy/backends/": {"numpy"},
    "deploy/backends/ov.py": {"numpy", "openvino"},
    "deploy/ladder/engine_tensors.py": {"numpy", "openvino"},
    "deploy/backends/reference.py": {"numpy", "google", "onnxruntime"},
}
# these never at the top of a file: the commands that don't need them have to start without them
LAZY = {
    *("openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "onnxruntime", "onnxslim"),
    *("rich", "dask", "distributed", "uvloop"),
}
# which packages of this project a package may use at run time; `deploy/` itself may use all of it
WITHIN = {
    "deploy/artifacts/": {"deploy.artifacts", "deploy.errors", "deploy.files"},
    "deploy/fusions/": {"deploy.surgery"},
    "deploy/surgery/": {"deploy.artifacts", "deploy.errors", "deploy.surgery"},
    "deploy/backends/": {
        "deploy.artifacts",
        "deploy.errors",
        "deploy.files",
        "deploy.floats.widen",
        "deploy.nvidia.host_plan",
        "deploy.nvidia.profiles",
        "deploy.nvidia.rtx_log",
        "deploy.nvidia.settings",
        "deploy.on_device",
        "deploy.plugin.libraries",
        "deploy.target",
    },
    "deploy/tasks/": {
        "deploy.artifacts",
        "deploy.detection.average_precision",
        "deploy.detection.boxes",
        "deploy.errors",
        "deploy.registry",
        "deploy.task",
        "deploy.task_options",
    },
    "deploy/decoders/": {
        "deploy.artifacts",
        "deploy.detection.boxes",
        "deploy.errors",
        "deploy.task",
        "deploy.task_options",
    },
    # installed without onnx on what serves
    "deploy/serving/": {"deploy.artifacts", "deploy.errors", "deploy.files", "deploy.serving"},
    # one script for a device that has no onnx-deploy is made of it
    "deploy/on_device/": {"deploy.on_device"},
}
EXTENSIONS = {
    "deploy/fusions": "fusion",
    "deploy/placements": "placement",
    "deploy/equalizations": "equalization",
    "deploy/corrections": "correction",
    "deploy/tasks": "task",
    "deploy/decoders": "decoder",
    "deploy/doctor/rules": "rule",
    "deploy/backends": "backend",
    "deploy/formats": "format",
    "calibrators/algorithms": "calibrator",
    "calibrators/datasets": "dataset",
}
STAGES = [
    *("load", "simplify", "fuse", "equalize", "calibrate", "quantize", "correct"),
    *("build", "parity", "package"),
]


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Every module imported anywhere, in full, with the statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where things come from"
            yield node.module or "", node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def only_for_types(tree: ast.Module) -> set[ast.AST]:
    """Statements under `if TYPE_CHECKING:`."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }


def rule(table: dict[str, set[str]], name: str) -> set[str] | None:
    fitting = [prefix for prefix in table if name.startswith(prefix)]
    return table[max(fitting, key=len)] if fitting else None


@pytest.mark.parametrize("name", NAMES)
def test_imports_from_outside_are_on_the_list(name: str) -> None:
    tree = parsed(ROOT / name)
    found = {module.split(".")[0] for module, _ in imports(tree)}
    outside = found - set(sys.stdlib_module_names) - {"deploy", "calibrators"}
    allowed = rule(ALLOWED, name)
    assert allowed is not None
    assert outside <= allowed, f"{sorted(outside - allowed)} don't belong in {name}"


@pytest.mark.parametrize("name", NAMES)
def test_vendors_are_imported_where_they_are_used(name: str) -> None:
    tree = parsed(ROOT / name)
    top = {node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    early = {m.split(".")[0] for m, node in imports(tree) if node in top} & LAZY
    assert not early, f"{sorted(early)} at the top of {name}; import it inside the function"


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("deploy/cli/")])
def test_commands_import_their_work_only_when_called(name: str) -> None:
    tree = parsed(ROOT / name)
    types = only_for_types(tree)
    top = {node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    ours = {m for m, node in imports(tree) if node in top - types and m.startswith("deploy.")}
    light = ("deploy.cli", "deploy.errors", "deploy.progress")
    assert [m for m in sorted(ours) if not m.startswith(light)] == []


@pytest.mark.parametrize("name", NAMES)
def test_imports_run_one_way(name: str) -> None:
    tree = parsed(ROOT / name)
    types = only_for_types(tree)
    used = {module for module, node in imports(tree) if node not in types}
    ours = {module for module in used if module.split(".")[0] == "deploy"}
    if name.startswith("calibrators/"):
        assert not ours, f"{name} knows of deploy"
    within = rule(WITHIN, name)
    if within is not None:
        starts = tuple(f"{allowed}." for allowed in within)
        wrong = {m for m in ours - {"deploy"} if not f"{m}.".startswith(starts)}
        assert not wrong, f"{name} imports {sorted(wrong)}"
    if not name.startswith("deploy/cli/") and name != "deploy/__main__.py":
        assert not any(m.startswith("deploy.cli") for m in ours), f"{name} knows of the terminal"
    stem = name.removeprefix("deploy/").removesuffix(".py")
    if stem in STAGES:
        later = {f"deploy.{stage}" for stage in STAGES[STAGES.index(stem) + 1 :]}
        assert not ours & later, f"stage {stem} imports a later one: {sorted(ours & later)}"
        assert "deploy.pipeline" not in ours


def test_imports_close_no_ring() -> None:
    """A ring fails or not by which of its files is imported first."""
    modules = {
        name.removesuffix(".py").replace("/", "."): path
        for name, path in zip(NAMES, SOURCES, strict=True)
    }
    reads: dict[str, set[str]] = {}
    for module, path in modules.items():
        found = [node for node in parsed(path).body if isinstance(node, ast.ImportFrom)]
        named = {f"{node.module}.{name.name}" for node in found for name in node.names}
        reads[module] = ({str(node.module) for node in found} | named) & modules.keys()
    TopologicalSorter(reads).prepare()


def test_only_the_pipeline_knows_the_order() -> None:
    stages = {f"deploy.{stage}" for stage in STAGES}
    calling = {
        name
        for name, path in zip(NAMES, SOURCES, strict=True)
        if len({m for m, _ in imports(parsed(path))} & stages) > 3
    }
    # INT8's part of the order has a file of its own
    assert calling == {"deploy/pipeline.py", "deploy/int8/stages.py"}


@pytest.mark.parametrize("folder", EXTENSIONS)
def test_extension_folders_hold_extensions_only(folder: str) -> None:
    from deploy import registry

    files = {p.name for p in (ROOT / folder).iterdir() if p.name != "__pycache__"}
    names = registry.names(EXTENSIONS[folder])
    assert files == {"__init__.py"} | {f"{name}.py" for name in names}
    init = parsed(ROOT / folder / "__init__.py")
    assert all(isinstance(node, ast.Expr) for node in init.body), "a docstring and nothing else"
    for name in names:
        if EXTENSIONS[folder] in (
            *("fusion", "placement", "calibrator", "equalization", "correction"),
            *("task", "decoder", "rule"),
        ):
            assert callable(registry.load(EXTENSIONS[folder], name))
        elif EXTENSIONS[folder] == "backend":
            module = registry.module("backend", name)
            assert callable(module.build)
            assert callable(module.load)
        elif EXTENSIONS[folder] == "format":
            module = registry.module("format", name)
            assert callable(getattr(module, name))
            assert callable(module.recognizes)
            assert callable(module.check)
        else:
            module = registry.module("dataset", name)
            assert callable(module.open)
            assert callable(module.accepts)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if str(Path(n).parent) in EXTENSIONS and "__init__" not in n]
)
def test_every_extension_has_its_test(name: str) -> None:
    wanted = f"test_{Path(name).name}"
    assert list((ROOT / "tests").rglob(wanted)), f"{name} needs a {wanted}"


@pytest.mark.parametrize("folder", EXTENSIONS)
def test_every_kind_has_a_contract_test(folder: str) -> None:
    parts = Path(folder).name
    assert list((ROOT / "tests").rglob(f"{parts}/test_contract.py")), f"no contract for {folder}"


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_readable(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").count("\n")
    assert lines <= MOST_LINES, f"{name} has {lines} lines: split it by what flows through"
    assert Path(name).stem not in ("utils", "util", "common", "misc", "manager", "helpers")


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_says_what_it_is(name: str) -> None:
    """Modules, public classes and public functions with a body worth a name."""
    tree = parsed(ROOT / name)
    assert ast.get_docstring(tree), f"{name} has no docstring"
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
        # an exception's meaning is drawn in the tree at the top of errors.py
        and name != "deploy/errors.py"
    ]
    assert not silent, f"{name}: {', '.join(silent)} without a docstring"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_file_with_one_function_of_its_name(stage: str) -> None:
    tree = parsed(ROOT / "deploy" / f"{stage}.py")
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    assert stage in functions


@pytest.mark.parametrize("stage", [s for s in STAGES if s != "build"])
def test_a_stage_is_a_command_too(stage: str) -> None:
    assert (ROOT / "deploy" / "cli" / f"{stage}.py").is_file()


def test_flags_are_recipe_fields() -> None:
    """CLI flag == TOML key == field name."""
    from deploy.cli.build import command
    from deploy.recipe import Recipe

    # of the run, not of the build: these don't change what is made
    own = {"model", "recipe", "output", "fresh", "as_json", "verbose", "chosen"}
    flags = {parameter.name: parameter for parameter in command.params}
    assert set(flags) - own == set(Recipe.model_fields)
    for name in Recipe.model_fields:
        assert flags[name].opts == [f"--{name.replace('_', '-')}"]


def test_top_level_is_as_drawn() -> None:
    for name in ("deploy", "calibrators", "plugins", "tests", "examples", "benchmarks"):
        assert (ROOT / name).is_dir(), name
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        assert (ROOT / name).is_file(), name
