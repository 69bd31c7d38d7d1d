"""The table of TensorRT's names, how it is asked and how it is made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import fetch_tensorrt_bindings
import pytest
import stubbed_tensorrt
import tensorrt_facts
import write_tensorrt_facts


@pytest.mark.parametrize(
    ("version", "name", "expected"),
    [
        ("8.5.2", "BuilderFlag.FP16", 0),
        ("11.4.0", "BuilderFlag.FP16", None),
        ("8.5.2", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", None),
        ("10.3", "Builder.create_network", "(flags: int = 0)"),
        ("8.6.1", "Builder.build_engine", "(network: INetworkDefinition, config: IBuilderConfig)"),
        ("10.0.1", "Builder.build_engine", None),
        ("10.16.1", "ITensor.dtype", "rw"),
        ("11.0.0", "ITensor.dtype", "ro"),
        ("8.5.2", "IInt8EntropyCalibrator2.get_batch", "(names: List[str])"),
        ("8.5.2", "Logger.__enter__", "()"),  # of its base
        ("rtx-1.7.1", "ComputeCapability.SM89", 89),
    ],
)
def test_what_a_name_is(version: str, name: str, expected: Any) -> None:
    assert tensorrt_facts.what(version, name) == expected
    assert tensorrt_facts.has(version, name) == (expected is not None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("8.5.2.2", "8.5.2"), ("8.5.3", "8.5.2"), ("10.13.0", "10.13.3"), ("10.16", "10.16.1")],
)
def test_a_version_is_known_by_major_and_minor(given: str, expected: str) -> None:
    assert tensorrt_facts.known(given) == expected


def test_an_unknown_version_is_refused_with_those_there_are() -> None:
    with pytest.raises(LookupError, match=r"no facts about TensorRT 7\.2; there are: 8\.5\.2, "):
        tensorrt_facts.known("7.2")


def test_every_version_can_be_fetched() -> None:
    assert list(fetch_tensorrt_bindings.WHEELS) == tensorrt_facts.versions()
    assert set(fetch_tensorrt_bindings.TESTED) <= set(tensorrt_facts.versions())


def test_fetching_takes_the_licence_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch", str(tmp_path)])
    with pytest.raises(SystemExit):
        fetch_tensorrt_bindings.main()
    assert "--accept-nvidia-license" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def surface(flags: dict[str, int], calls: str) -> dict[str, Any]:
    members = {"create_network": calls, "logger": "ro"}
    return {
        "enums": {"BuilderFlag": flags, "UnaryOperation": {"EXP": 0}},
        "classes": {
            "Builder": {"bases": [], "members": members},
            "IUnaryLayer": {"bases": ["ILayer"], "members": {}},
        },
        "functions": {"volume": "(iterable)"},
        "values": {"float32": "DataType.FLOAT"},
    }


def test_versions_are_merged_to_intervals() -> None:
    made = write_tensorrt_facts.table(
        {
            "1": surface({"FP16": 0, "TF32": 1}, "(flags: int = 0)"),
            "2": surface({"FP16": 0, "TF32": 1}, "()"),
            "3": surface({"TF32": 2}, "()"),
        }
    )
    assert made["names"] == {
        "Builder": {"*": "class()"},
        "Builder.create_network": {"1..1": "(flags: int = 0)", "2..3": "()"},
        "Builder.logger": {"*": "ro"},
        "BuilderFlag": {"*": "enum"},
        "BuilderFlag.FP16": {"1..2": 0},
        "BuilderFlag.TF32": {"1..2": 1, "3..3": 2},
        "float32": {"*": "DataType.FLOAT"},
        "volume": {"*": "(iterable)"},
    }


class Module:
    """Stands for a bindings module: pybind11's docstrings are all that is read of a call."""

    __name__ = "tensorrt"
    __version__ = "8.5.2.2"


def bound(doc: str) -> Any:
    """A callable without Python code, as pybind11's are."""
    return type("Bound", (), {"__doc__": doc, "__call__": lambda self: None, "__module__": "x"})()


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        (
            "f(self: tensorrt.tensorrt.Builder, flags: typing.SupportsInt = 0) -> None\n\n  text",
            "(flags: int = 0)",
        ),
        (
            (
                "f(*args, **kwargs)\nOverloaded function.\n\n1. f(self: a.B) -> None\n\n"
                "2. f(self: a.B, s: tensorrt_bindings.tensorrt.Severity = "
                "<tensorrt_bindings.tensorrt.Severity.WARNING: 2>) -> int"
            ),
            "() | (s: Severity = Severity.WARNING)",
        ),
        (
            "f(self: a.B, x: List[Tuple[int, str]], data: collections.abc.Buffer) -> None",
            "(x: List[Tuple[int, str]], data: buffer)",
        ),
        ("Initialize self.  See help(type(self)) for accurate signature.", "none"),
    ],
)
def test_parameters_are_read_from_docstrings(doc: str, expected: str) -> None:
    assert stubbed_tensorrt._calls("f", bound(doc), method=True) == expected


def test_a_surface_has_enums_classes_functions_and_values() -> None:
    def member(name: str) -> Any:
        return type("Flag", (), {"__module__": "tensorrt", "name": name, "__int__": lambda _: 3})()

    flag = type(member("A"))
    flag.__members__ = {"A": member("A")}
    flag.__name__ = "Flag"
    trt = Module()
    builder = type("Builder", (), {"__module__": "tensorrt.tensorrt", "logger": property(len)})
    one = flag()
    trt.__dict__.update({"Flag": flag, "Builder": builder, "a": one, "os": sys, "_hidden": builder})
    found = stubbed_tensorrt.surface(trt)
    assert found["enums"] == {"Flag": {"A": 3}}
    assert found["classes"] == {"Builder": {"bases": [], "members": {"logger": "ro"}}}
    assert found["values"] == {"a": "Flag.A"}


def test_what_a_shared_object_links() -> None:
    import numpy as np

    extension = next((Path(np.__file__).parent / "_core").glob("_multiarray_umath*.so"))
    assert "libc.so.6" in stubbed_tensorrt.needed(extension)
    with pytest.raises(ValueError, match="no little-endian ELF64 file"):
        stubbed_tensorrt.needed(Path(__file__))


def test_a_wheel_names_the_python_it_takes(tmp_path: Path) -> None:
    (tmp_path / "x.dist-info").mkdir()
    wheel = tmp_path / "x.dist-info" / "WHEEL"
    wheel.write_text(f"Tag: cp3{sys.version_info[1]}-none-any\n")
    assert stubbed_tensorrt.python_for(tmp_path)[0] == sys.executable
    wheel.write_text("Tag: cp399-none-any\n")
    assert stubbed_tensorrt.python_for(tmp_path) == (None, "3.99")
    with pytest.raises(LookupError, match=r"needs Python 3\.99; none was found on PATH"):
        stubbed_tensorrt.surface_of(tmp_path)
    wheel.write_text("Tag: py3-none-any\n")
    with pytest.raises(LookupError, match=r"names no cp3\.\. tag"):
        stubbed_tensorrt.python_for(tmp_path)
