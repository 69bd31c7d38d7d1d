"""The names, parameters and enum values of real TensorRT bindings, with no GPU and no TensorRT.

`python stubbed_tensorrt.py SITE` imports the bindings that lie unpacked in the folder SITE and
prints its `surface` as JSON; `surface_of(SITE)` runs that with a Python the wheel was built for.
One version fits into a process, and old wheels need old Pythons: this file keeps to Python 3.8.

How: the extension links libnvinfer.so.N and others. A shared object of that name, loaded first,
satisfies the dynamic linker; the dozen C functions whose addresses the extension takes are defined
there to return NULL. Classes, signatures and enums are then all there; nothing behaves: Builder()
says "factory function returned nullptr", as the real library does without a driver.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# what the extension of any version from 8.5 to 11.4 wants to link, apart from abstract classes
_ENTRY_POINTS = (
    *("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createInferRefitter_INTERNAL", "createNvOnnxParser_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins"),
    # the UFF and Caffe parsers of 8.x
    *("_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi"),
    *("_ZN14nvcaffeparser117createCaffeParserEv",),
    *("_ZN14nvcaffeparser123shutdownProtobufLibraryEv",),
)
_VENDOR = (
    *("libnvinfer", "libnvonnxparser", "libnvparsers", "libcublas", "libcudnn", "libcudart"),
    *("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"),
)
_PACKAGES = ("tensorrt_bindings", "tensorrt", "tensorrt_rtx_bindings", "tensorrt_rtx")
_loaded: list[ctypes.CDLL] = []  # a library that nobody holds may be unloaded


def surface_of(site: Path) -> dict[str, Any]:
    """`surface` of the bindings in a folder, read in a process of a fitting Python.

    LookupError says which Python is missing; RuntimeError what the import said.
    """
    python, wanted = python_for(site)
    if python is None:
        raise LookupError(f"{site.name} needs Python {wanted}; none was found on PATH")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        raise LookupError("no C compiler for the stub libraries; install gcc")
    command = [python, "-B", str(Path(__file__).resolve()), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{site}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def python_for(site: Path) -> tuple[str | None, str]:
    """A Python that can import the wheel in a folder, and its version such as "3.10"."""
    tag = next(iter(site.glob("*.dist-info/WHEEL"))).read_text(encoding="utf-8")
    found = re.search(r"^Tag: cp3(\d+)", tag, re.MULTILINE)
    if found is None:
        raise LookupError(f"{site}: its WHEEL file names no cp3.. tag")
    wanted = f"3.{found.group(1)}"
    if wanted == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable, wanted
    roots = [os.environ.get("PYENV_ROOT", ""), str(Path.home() / ".pyenv")]
    pyenv = [p for r in roots if r for p in Path(r).glob(f"versions/{wanted}.*/bin/python")]
    return (str(pyenv[0]) if pyenv else shutil.which(f"python{wanted}")), wanted


def load(site: Path) -> Any:
    """The bindings in a folder as a module; one version per process."""
    package = next(p for p in _PACKAGES if (site / p).is_dir())
    extension = next(iter((site / package).glob("tensorrt*.so")))
    with tempfile.TemporaryDirectory() as folder:
        for name in needed(extension):
            if name.startswith(_VENDOR):
                library = str(_stub(name, Path(folder)))
                _loaded.append(ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL))
    sys.path.insert(0, str(site))
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_LOCAL)
    try:
        return importlib.import_module(package)
    finally:
        sys.setdlopenflags(flags)


def needed(path: Path) -> list[str]:
    """The libraries an ELF file of 64 bits links: DT_NEEDED of its dynamic section."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no little-endian ELF64 file")
    (headers,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQ", data, headers + i * size) for i in range(count)]
    start, length = next((s[2], s[5]) for s in segments if s[0] == 2)  # PT_DYNAMIC
    entries = [struct.unpack_from("<qQ", data, start + i) for i in range(0, length, 16)]
    table = next(value for tag, value in entries if tag == 5)  # DT_STRTAB
    loads = [s for s in segments if s[0] == 1]
    strings = next(table - s[3] + s[2] for s in loads if s[3] <= table < s[3] + s[5])
    found = [strings + value for tag, value in entries if tag == 1]
    return [data[at : data.index(b"\0", at)].decode() for at in found]


def _stub(name: str, folder: Path) -> Path:
    """A shared object of that name whose entry points return NULL."""
    main = name.startswith(("libnvinfer.so", "libnvonnx", "libnvparsers", "libtensorrt"))
    source = folder / f"{name}.c"
    names = _ENTRY_POINTS if main or "plugin" in name else ()
    source.write_text("".join(f"void* {n}(void) {{ return 0; }}\n" for n in names) or "\n")
    compiler = shutil.which("cc") or "gcc"
    command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", str(source), "-o"]
    subprocess.run([*command, str(folder / name)], check=True)
    return folder / name


def surface(trt: Any) -> dict[str, Any]:
    """Everything public of a bindings module.

    enums: values per member. classes: bases, and per member "ro" or "rw" for a property, "value",
    or the calls it takes, "(flags: int = 0)", several joined by " | "; "none" for the __init__ of a
    class that can't be called. functions: the same.
    values: module constants that are members of an enum, float32 -> DataType.FLOAT.
    """
    kinds = ("enums", "classes", "functions", "values")
    found: dict[str, Any] = {"version": trt.__version__, **{kind: {} for kind in kinds}}
    for name, thing in sorted(vars(trt).items()):
        if name.startswith("_") or not _own(thing, trt):
            continue
        if isinstance(thing, type):
            _class(found, name, thing)
        elif hasattr(type(thing), "__members__") and name != "value":  # a loop's left-over
            found["values"][name] = f"{type(thing).__name__}.{thing.name}"
        elif callable(thing):
            found["functions"][name] = _calls(name, thing, method=False)
    return found


def _own(thing: Any, trt: Any) -> bool:
    """Whether a name of the module was made by it, not imported into it."""
    module = getattr(thing, "__module__", None) or getattr(type(thing), "__module__", "")
    return bool(str(module).split(".")[0] == trt.__name__.split(".")[0])


def _class(found: dict[str, Any], name: str, made: type) -> None:
    if hasattr(made, "__members__"):
        found["enums"][name] = {k: int(v) for k, v in made.__members__.items()}
        return
    bases = [
        b.__name__ for b in made.__mro__[1:] if b.__name__ not in ("object", "pybind11_object")
    ]
    members: dict[str, str] = {}
    for key, member in sorted(vars(made).items()):
        if isinstance(member, type):
            _class(found, f"{name}.{key}", member)
        elif isinstance(member, property):
            members[key] = "ro" if member.fset is None else "rw"
        elif key.startswith("_") and key not in _SPECIAL:
            continue
        elif callable(member):
            members[key] = _calls(key, member, method=True)
        else:
            members[key] = "value"
    found["classes"][name] = {"bases": bases, "members": members}


_SPECIAL = ("__init__", "__len__", "__getitem__", "__iter__", "__call__", "__enter__", "__exit__")


def _calls(name: str, function: Any, method: bool) -> str:
    """The parameters of every overload, from pybind11's docstring or Python's own signature."""
    if hasattr(function, "__code__"):
        code = function.__code__
        return f"({', '.join(code.co_varnames[int(method) : code.co_argcount])})"
    lines = [line.strip() for line in (getattr(function, "__doc__", "") or "").splitlines()]
    if lines and lines[0].startswith("Initialize self."):
        return "none"  # a class that only the library makes objects of
    wanted = re.compile(rf"(?:\d+\. )?{re.escape(name)}(\(.*\)) -> ")
    found = [
        m.group(1) for m in map(wanted.match, lines) if m and m.group(1) != "(*args, **kwargs)"
    ]
    return " | ".join(f"({', '.join(_parameters(call, method))})" for call in found) or "()"


def _parameters(call: str, method: bool) -> list[str]:
    """`name: type = default` per parameter but self, the types without their module."""
    plain = re.sub(r"\b(?:tensorrt\w*\.)+(?=\w)", "", call[1:-1])
    plain = re.sub(
        r"<(\w+\.\w+): -?\d+>|<[^>]*object at [^>]*>", lambda m: m.group(1) or "...", plain
    )
    for spelled, word in _SPELLINGS:
        plain = plain.replace(spelled, word)
    parts = list(_split(plain))
    return parts[1:] if method else parts


# newer pybind11 says the same in other words, which newer Pythons have at home
_SPELLINGS = (
    *(("typing.SupportsInt", "int"), ("typing.SupportsFloat", "float")),
    *(("typing_extensions.Buffer", "buffer"), ("collections.abc.Buffer", "buffer")),
    *(("typing_extensions.CapsuleType", "capsule"), ("types.CapsuleType", "capsule")),
    *(("collections.abc.Sequence", "List"), ("collections.abc.Iterable", "Iterable")),
)


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that stand in no bracket."""
    depth, part = 0, ""
    for char in text:
        depth += (char in "([{<") - (char in ")]}>")
        if char == "," and depth == 0:
            yield part.strip()
            part = ""
        else:
            part += char
    if part.strip():
        yield part.strip()


if __name__ == "__main__":
    json.dump(surface(load(Path(sys.argv[1]).resolve())), sys.stdout)
