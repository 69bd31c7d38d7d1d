"""What gpu_plugins.py measures: the cases, their parameters for the launchers, what a result has to
reach, and the kernels as one library. Needs no GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
OPS = ("shuffle_depthwise", "se_pointwise", "channel_shuffle")
BANDWIDTH_GOAL = 0.80
SPEED_GOAL = 1.8
# x and y together are so many times the cache: then hardly anything is found in it again
CACHES = 6
TYPES = {"float32": (0, 4), "float16": (1, 2), "int8": (2, 1)}
# relative to the sum of a result's terms: what float32 sums and the type's rounding may cost; for
# int8 without the last rounding to an integer
TOLERANCES = {"float32": 1e-6, "float16": 1e-3, "int8": 1e-6}
# se_pointwise multiplies in float16 for tensor cores, also in int8
POINTWISE_TOLERANCES = {"float32": 1e-6, "float16": 2e-3, "int8": 1e-3}
X_SCALE, Y_SCALE = 0.02, 0.05


class GpuError(Exception):
    """What is missing, and what to do."""


@dataclass(frozen=True)
class Case:
    """One operator on maps of one size."""

    op: str
    dtype: str
    channels: int
    size: int
    groups: int = 1
    kernel: int = 3
    stride: int = 1
    out_channels: int = 0

    @property
    def out_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    def bytes_per_image(self) -> int:
        """x and y, each once."""
        out = (self.out_channels or self.channels) * self.out_size**2
        return (self.channels * self.size**2 + out) * TYPES[self.dtype][1]

    def batch(self, cache_bytes: int) -> int:
        """The images that don't fit the cache."""
        return max(1, -(-CACHES * cache_bytes // self.bytes_per_image()))

    def tolerance(self) -> float:
        """The largest error that the arithmetic explains."""
        return (POINTWISE_TOLERANCES if self.op == "se_pointwise" else TOLERANCES)[self.dtype]

    def __str__(self) -> str:
        shape = f"{self.channels} x {self.size} x {self.size}"
        if self.op == "shuffle_depthwise":
            return f"{shape}, {self.kernel}x{self.kernel}/{self.stride}, {self.groups} groups"
        if self.op == "se_pointwise":
            return f"{shape} to {self.out_channels}"
        return f"{shape}, {self.groups} groups"


# shuffle_depthwise's kernel compiled otherwise, to see what suits a GPU: nvcc's options by name
VARIANTS: dict[str, tuple[str, ...]] = {
    "as shipped": (),
    "no tensor cores": ("-DSHUFFLE_DEPTHWISE_TENSOR=0",),
    "all tensor cores": ("-DSHUFFLE_DEPTHWISE_TENSOR=2",),
    "all, 8 warps": ("-DSHUFFLE_DEPTHWISE_TENSOR=2", "-DSHUFFLE_DEPTHWISE_BUSY_WARPS=8"),
    "1 image": ("-DSHUFFLE_DEPTHWISE_ENOUGH_BLOCKS=100000000",),
    "more images": ("-DSHUFFLE_DEPTHWISE_ENOUGH_BLOCKS=2048",),
    "16 KiB": ("-DSHUFFLE_DEPTHWISE_BLOCK_BYTES=(16<<10)",),
    "40 KiB": ("-DSHUFFLE_DEPTHWISE_BLOCK_BYTES=(40<<10)",),
}


CASES = [
    *(
        Case("shuffle_depthwise", dtype, channels, size, groups, kernel, stride)
        for dtype in TYPES
        for channels, size, groups, kernel, stride in (
            (240, 112, 3, 3, 1),
            (240, 56, 3, 3, 1),
            (240, 56, 3, 3, 2),
            (240, 56, 3, 5, 1),
            (480, 28, 8, 3, 1),
            (58, 57, 2, 3, 1),
        )
    ),
    *(
        Case("se_pointwise", dtype, channels, size, out_channels=outputs)
        for dtype in TYPES
        for channels, size, outputs in ((72, 56, 40), (240, 28, 80), (480, 14, 112))
    ),
    *(Case("channel_shuffle", dtype, 240, size, 3) for dtype in TYPES for size in (56, 57)),
]


@dataclass(frozen=True)
class Result:
    """What one case gave."""

    case: Case
    batch: int
    kernel_ms: float
    torch_ms: float
    copy_gb_s: float
    error: float

    @property
    def gb_s(self) -> float:
        return self.case.bytes_per_image() * self.batch / self.kernel_ms / 1e6

    @property
    def of_copy(self) -> float:
        return self.gb_s / self.copy_gb_s

    @property
    def speedup(self) -> float:
        return self.torch_ms / self.kernel_ms

    def misses(self) -> list[str]:
        """The goals it doesn't reach, with both values."""
        missed = []
        if not self.error <= self.case.tolerance():
            missed.append(f"error {self.error:.1e}, at most {self.case.tolerance():.0e}")
        if self.case.op == "shuffle_depthwise":
            if self.of_copy < BANDWIDTH_GOAL:
                missed.append(f"{self.of_copy:.0%} of the copy, at least {BANDWIDTH_GOAL:.0%}")
            if self.speedup < SPEED_GOAL:
                missed.append(f"{self.speedup:.2f}x PyTorch, at least {SPEED_GOAL}x")
        return missed


def table(results: list[Result]) -> str:
    """The results as aligned text; missed goals on the line of their case."""
    rows = [("op", "type", "maps", "batch", "ms", "GB/s", "of copy", "vs torch", "error", "missed")]
    rows += [
        (
            r.case.op,
            r.case.dtype,
            str(r.case),
            str(r.batch),
            f"{r.kernel_ms:.3f}",
            f"{r.gb_s:.0f}",
            f"{r.of_copy:.0%}",
            f"{r.speedup:.2f}x",
            f"{r.error:.1e}",
            "; ".join(r.misses()),
        )
        for r in results
    ]
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def tuning_table(shares: dict[str, dict[str, float | None]]) -> str:
    """The share of the copy's bandwidth by case and variant, None where it was wrong; a line ends
    with the best."""
    rows = [("case", *VARIANTS, "best")]
    for case, of in shares.items():
        right = {name: share for name, share in of.items() if share is not None}
        best = max(right, key=lambda name: right[name]) if right else "none"
        cells = ("wrong" if of[name] is None else f"{of[name]:.0%}" for name in VARIANTS)
        rows.append((case, *cells, best))
    return _aligned(rows)


def compile_library(
    folder: Path, architecture: str, ops: Sequence[str] = OPS, options: Sequence[str] = ()
) -> Path:
    """The ops' kernels as one shared library in a folder of its own; GpuError with nvcc's words."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise GpuError("nvcc isn't on PATH; install the CUDA toolkit or add its bin folder")
    folder.mkdir(exist_ok=True)
    objects = []
    for op in ops:
        objects.append(folder / f"{op}.o")
        source = ["-Xcompiler=-fPIC", "-c", str(PLUGINS / op / "kernel.cu")]
        target = [f"-arch={architecture}", *options, *source, "-o", str(objects[-1])]
        _nvcc(nvcc, ["-std=c++14", "-O3", *target])
    library = folder / "kernels.so"
    _nvcc(nvcc, ["-shared", *map(str, objects), "-o", str(library)])
    return library


def _nvcc(nvcc: str, options: list[str]) -> None:
    done = subprocess.run([nvcc, *options], capture_output=True, text=True)
    if done.returncode != 0:
        raise GpuError(f"nvcc {' '.join(options)} failed:\n{done.stderr.strip()}")


def structure(name: str, integers: str, floats: str = "") -> type[ctypes.Structure]:
    """A params.h as a ctypes class."""
    fields = [(field, ctypes.c_int) for field in integers.split()]
    fields += [(field, ctypes.c_float) for field in floats.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


ShuffleDepthwise = structure(
    "ShuffleDepthwiseParams",
    "type weight_type batch channels height width groups kernel stride "
    "pad_top pad_left pad_bottom pad_right relu",
    "x_scale y_scale",
)
SePointwise = structure(
    "SePointwiseParams",
    "type weight_type batch channels out_channels positions",
    "x_scale y_scale",
)
ChannelShuffle = structure("ChannelShuffleParams", "element_bytes batch channels groups positions")


def parameters(case: Case, batch: int) -> ctypes.Structure:
    """The launcher's struct; int8 takes float32 weights, as TensorRT hands them over."""
    number, size = TYPES[case.dtype]
    weight = 0 if case.dtype == "int8" else number
    if case.op == "channel_shuffle":
        return ChannelShuffle(size, batch, case.channels, case.groups, case.size**2)
    if case.op == "se_pointwise":
        shape = (batch, case.channels, case.out_channels, case.size**2)
        return SePointwise(number, weight, *shape, X_SCALE, Y_SCALE)
    shape = (batch, case.channels, case.size, case.size, case.groups, case.kernel, case.stride)
    pads = (case.kernel // 2,) * 4
    return ShuffleDepthwise(number, weight, *shape, *pads, 1, X_SCALE, Y_SCALE)
