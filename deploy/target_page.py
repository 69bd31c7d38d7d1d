"""The page about all targets, made from their TOML files: `python -m deploy.target_page FILE`.

The sources of the figures are the comments of the files, so they stand in one place.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from deploy import registry
from deploy.nvidia.settings import RUNGS, Nvidia, Rung
from deploy.target import Target

_LIBRARIES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
_CHAPTERS = {
    "trt": "NVIDIA, through TensorRT",
    "rtx": "NVIDIA, through TensorRT-RTX",
    "ov": "CPUs and Intel devices, through OpenVINO",
}
# what a file's comments say about, by the table they stand above
_SOURCED = {
    "engine.nvidia": "software",
    "quantization": "INT8",
    "float8": "FP8",
    "roofline": "roofline",
}
_HEAD = """# Targets

Made from `deploy/targets/*.toml` by `python -m deploy.target_page docs/targets.md`; change those
files, not this one. `deploy targets NAME` prints every setting of one.

How far a target was proven, the weakest first:

{rungs}

A report says the same of one build. Neither says more than was shown.
"""


def target_page() -> str:
    """The page in Markdown: a section per target, by backend."""
    found = [Target.load(name) for name in registry.names("target")]
    rungs = "\n".join(f"{place}. *{words}*" for place, words in enumerate(RUNGS.values(), 1))
    parts = [_HEAD.format(rungs=rungs)]
    for backend, title in _CHAPTERS.items():
        parts.append(f"## {title}\n")
        parts += [_section(target) for target in found if target.backend == backend]
    return "\n".join(parts)


def proven(target: Target) -> tuple[Rung, str]:
    """How far a target as such was proven, and what was done for it, in a sentence."""
    nvidia = target.engine.nvidia
    if nvidia is None:
        if target.host:
            return "device", "Engines are built, compared with float32 and timed where they run."
        if target.engine.device == "CPU":
            return "predicted", (
                "OpenVINO builds and judges its engines on the CPU at hand; none ran on this one."
            )
        return "predicted", "From documentation alone; nothing was run on it."
    release = _release(nvidia)
    said: dict[Rung, str] = {
        "predicted": "From documentation alone; nothing was run on it.",
        "api": f"Every name that building and running its engines uses was looked up in the real "
        f"Python bindings of {release}, imported without a GPU; no engine was built.",
        "compiler": f"{release} parsed models, built engines for it without a GPU and listed their "
        "layers with types; none was run.",
        "device": "Engines were built, compared with float32 and timed on it.",
    }
    return nvidia.shown, said[nvidia.shown]


def remains(target: Target) -> str:
    """What is left to do on the device after `deploy build`, in a sentence."""
    nvidia = target.engine.nvidia
    if nvidia is None:
        if target.host:
            return "Nothing: the build measures on this machine."
        return "Run `deploy parity BUNDLE` and `deploy bench` on the device."
    does = "compares it with float32 and times it"
    built = f"loads the engine, {does}"
    if nvidia.library == "tensorrt":
        built = f"builds the engine, {does}"
    return (
        f"Copy `BUNDLE/device` there and run `python3 finish.py` in it: it {built}. Then "
        "`deploy import BUNDLE DIR` here."
    )


def _section(target: Target) -> str:
    rung, done = proven(target)
    rows = [
        ("software", _software(target)),
        ("precisions", _precisions(target)),
        ("INT8", _int8(target)),
        ("FP8", _fp8(target)),
        ("roofline", _roofline(target)),
        ("proven", f"*{RUNGS[rung]}*. {done}"),
        ("remains", remains(target)),
    ]
    nvidia = target.engine.nvidia
    if nvidia is not None and nvidia.plugins:
        rows.insert(3, ("plugins", ", ".join(f"`{name}`" for name in nvidia.plugins)))
    lines = [f"### {target.name}", "", f"{target.title}.", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in rows if text]
    lines += ["", *(f"- {note}" for note in target.notes), ""]
    sources = _sources(registry.path("target", target.name))
    if sources:
        lines += ["Sources:", "", *(f"- {what}: {text}" for what, text in sources.items()), ""]
    return "\n".join(lines)


def _release(nvidia: Nvidia) -> str:
    *others, last = nvidia.versions
    releases = f"{', '.join(others)} or {last}" if others else last
    return f"{_LIBRARIES[nvidia.library]} {releases}"


def _software(target: Target) -> str:
    nvidia = target.engine.nvidia
    if nvidia is None:
        return f"OpenVINO, device {target.engine.device}, {target.instruction_set}"
    jetpack = f", JetPack {nvidia.jetpack}" if nvidia.jetpack else ""
    return (
        f"{_release(nvidia)}, CUDA {nvidia.cuda}{jetpack}, compute capability "
        f"{nvidia.compute_capability}, {nvidia.typing} typing"
    )


def _precisions(target: Target) -> str:
    return ", ".join(
        f"{name} (default)" if name == target.default_precision else name
        for name in target.precisions
    )


def _int8(target: Target) -> str:
    form = target.quantization
    if "int8" not in target.precisions:
        return ""
    zero = "no zero points" if form.activation_symmetric else "zero points"
    way = f"Q/DQ in the graph, {form.activation_dtype}, {zero}"
    if form.form == "implicit":
        way = "calibration cache and a precision per layer beside the float graph, no zero points"
    elif form.weight_form == "fp32":
        way += ", weights in float32"
    opset = f"; opset up to {form.highest_opset}" if form.highest_opset else ""
    return way + opset


def _fp8(target: Target) -> str:
    if target.float8 is None:
        return ""
    beside = target.float8.why or "convolutions of one group and matrix products"
    return f"Q/DQ in the graph, float8e4m3fn, no zero points; {beside}; the rest in float16"


def _roofline(target: Target) -> str:
    roofline = target.roofline
    rates = ", ".join(
        f"{name} {roofline.peak_flops[name] / 1e12:.4g}" for name in target.precisions
    )
    return (
        f"{rates} TFLOP/s; {roofline.bandwidth_bytes_per_s / 1e9:.4g} GB/s; "
        f"{roofline.on_chip_bytes / 2**20:.3g} MiB on the chip"
    )


def _sources(file: Path) -> dict[str, str]:
    """What the file's comments say, by what they are about; else which target's it takes over."""
    text = file.read_text(encoding="utf-8")
    parent = tomllib.loads(text).get("extends")
    above = _sources(registry.path("target", parent)) if parent else {}
    taken = {
        what: said if said.startswith("as [") else f"as [{parent}](#{parent})"
        for what, said in above.items()
    }
    return {**taken, **dict(_comments(text))}


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """The comment right above each table that has one."""
    comment: list[str] = []
    for line in text.splitlines():
        if line.startswith("# "):
            comment.append(line[2:].strip())
            continue
        if line.startswith("[") and line.strip("[]") in _SOURCED and comment:
            yield _SOURCED[line.strip("[]")], " ".join(comment)
        comment = []


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(target_page(), encoding="utf-8")
