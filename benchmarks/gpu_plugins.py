"""The plugins' CUDA kernels on this machine's GPU, against what the memory gives and what PyTorch
does without them.

    python benchmarks/gpu_plugins.py                 needs PyTorch with CUDA, and nvcc
    python benchmarks/gpu_plugins.py --compile-only  needs nvcc alone
    python benchmarks/gpu_plugins.py --only shuffle_depthwise --tune   for a GPU lent for minutes

Must hold for shuffle_depthwise, in every type, on maps that don't fit the cache: at least 80 % of
the bandwidth that a plain copy of device memory reaches, and at least 1.8 times the speed of the
unfused PyTorch operators. se_pointwise and channel_shuffle are measured beside it, without a goal.
Every result is first compared with float64. Exit code 1 where a goal or a comparison is missed.

Times are medians of CUDA events around a few launches, the candidates in turn, enqueued while the
GPU waits. Bandwidth counts
x and y once each. In int8, PyTorch has no depthwise convolution, so it is compared with float16,
the fastest that PyTorch has.

On an NVIDIA H200 (driver 580, CUDA 13.0, PyTorch 2.11.0, 2026-11-20, one run; copy 3.8 to 4 TB/s)
every result was right and every shuffle_depthwise beat PyTorch by more than 1.8 times: float32 3.3
to 6.4, float16 2.7 to 5.8, int8 2.2 to 7.9. 17 of 18 cases missed the copy's share: float32 56
to 83 %, float16 29 to 63 %, int8 11 to 45 %. se_pointwise lost to PyTorch in 4 of 9 cases:
int8 0.49 to 0.94 times as fast as float16 there, float32 0.82 on 480 x 14 x 14. A bundle's
finish.py times the engine with and without plugins and keeps the faster.

That kernel was bound by instructions, and the host's part of the launches was in the time.
shuffle_depthwise was rewritten twice since; what is here now never ran on a GPU. Predicted:
instructions per output, counted by hand along nvcc 13.0's code for sm_90, against the slots of an
H200 while the copy runs (132 x 128 lanes at 1.98 GHz): float32 68, float16 34, int8 17.

    maps      112, 3x3  56, 3x3  56, 5x5  28, 3x3  57, 3x3  56, 3x3/2 (slots 171, 85, 42)
    float32      29        29       47       30       35       55
    float16      23        22       21       25       24       41
    int8         13        13       16       15       19       23

If four fifths of the slots can be used, int8 on 57 x 57 gets 74 % of the copy, 5x5 86 %, 28 x 28
91 %, and the memory decides the rest. --tune tries other ways to cut the work.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu_cases import (
    CASES,
    OPS,
    VARIANTS,
    X_SCALE,
    Y_SCALE,
    Case,
    GpuError,
    Result,
    compile_library,
    parameters,
    table,
    tuning_table,
)

ROUNDS, WARM_UP, LAUNCHES = 30, 5, 5
TUNING_ROUNDS = 12
WAIT_CYCLES = 2_000_000  # about a millisecond


class Problem:
    """One case's tensors on the GPU, and the three things that are timed."""

    def __init__(self, torch: Any, case: Case, batch: int, device: str = "cuda") -> None:
        self.torch, self.case, self.batch = torch, case, batch
        torch.manual_seed(0)
        make = {"device": device, "dtype": torch.float32}
        c, outputs = case.channels, case.out_channels or case.channels
        self.kind = getattr(torch, case.dtype)
        self.side = torch.float32 if case.dtype == "int8" else self.kind
        shape = (batch, c, case.size, case.size)
        if case.dtype == "int8":
            self.x = torch.randint(-128, 128, shape, device=device, dtype=torch.int8)
        else:
            self.x = torch.randn(shape, device=device, dtype=self.kind)
        pointwise = case.op == "se_pointwise"
        w_shape = (outputs, c, 1, 1) if pointwise else (c, 1, case.kernel, case.kernel)
        w = torch.randn(w_shape, **make)
        self.w_scale = w.abs().amax((1, 2, 3)) / 127
        steps = self.w_scale[:, None, None, None]
        self.w = ((w / steps).round() * steps if case.dtype == "int8" else w).to(self.side)
        self.bias = torch.randn(outputs, **make).to(self.side)
        self.scale = torch.rand((batch, c, 1, 1), **make).to(self.side)
        out = (batch, outputs, case.out_size, case.out_size)
        self.y = torch.empty(out, device=device, dtype=self.kind)
        count = (self.x.numel() + self.y.numel()) * self.x.element_size() // 2
        self.copies = [torch.empty(count, device=device, dtype=torch.uint8) for _ in range(2)]
        # what PyTorch computes with: float16 in place of int8
        half = torch.float16 if case.dtype == "int8" else self.kind
        self.float_x = self.x.to(half)
        self.floats = [tensor.to(half) for tensor in (self.scale, self.w, self.bias)]

    def launcher(self, library: ctypes.CDLL) -> Callable[[], None]:
        """What enqueues the plugin's kernel, with as little as possible left to do; when called, it
        raises GpuError for a refusal."""
        inputs = {
            "shuffle_depthwise": [self.x, self.w, self.bias, self.w_scale],
            "se_pointwise": [self.x, self.scale, self.w, self.bias, self.w_scale],
            "channel_shuffle": [self.x],
        }[self.case.op]
        if self.case.dtype != "int8" and self.case.op != "channel_shuffle":
            inputs[-1] = None
        pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (*inputs, self.y)]
        on_gpu = self.x.device.type == "cuda"
        stream = self.torch.cuda.current_stream().cuda_stream if on_gpu else None
        function = getattr(library, f"launch_{self.case.op}")
        params = parameters(self.case, self.batch)
        arguments = (ctypes.byref(params), *pointers, ctypes.c_void_p(stream))

        def launch() -> None:
            status = function(*arguments)
            if status != 0:
                raise GpuError(f"{self.case.op}, {self.case}: the launcher returned {status}")

        return launch

    def unfused(self, x: Any, scale: Any, w: Any, bias: Any) -> Any:
        """The same by PyTorch's operators, in the type of its inputs."""
        functional, case = self.torch.nn.functional, self.case
        if case.op == "se_pointwise":
            return functional.conv2d(x * scale, w, bias)
        n, c, height, width = x.shape
        groups = x.view(n, case.groups, c // case.groups, height, width)
        mixed = groups.transpose(1, 2).reshape(n, c, height, width)
        if case.op == "channel_shuffle":
            return mixed
        padding = case.kernel // 2
        y = functional.conv2d(mixed, w, bias, case.stride, padding, groups=c)
        return functional.relu(y)

    def copy(self) -> None:
        """Enqueue a plain copy of as many bytes as x and y have."""
        self.copies[0].copy_(self.copies[1])

    def error(self) -> float:
        """y's largest distance from float64, relative to the sum of the terms; int8 less the half
        step of its last rounding. Of the first and the last image."""
        ends = [0, -1]
        integers = self.case.dtype == "int8" and self.case.op != "channel_shuffle"
        step = {
            name: value if integers else 1.0 for name, value in (("x", X_SCALE), ("y", Y_SCALE))
        }
        x = self.x[ends].double() * step["x"]
        rest = (self.scale[ends].double(), self.w.double(), self.bias.double())
        exact = self.unfused(x, *rest) / step["y"]
        size = self.unfused(x.abs(), *(tensor.abs() for tensor in rest)) / step["y"]
        if integers:
            exact = exact.clamp(-128, 127)
        apart = (self.y[ends].double() - exact).abs() - (0.5 if integers else 0.0)
        return float((apart.clamp(min=0) / size.clamp(min=1e-9)).max())


def medians(torch: Any, candidates: list[Callable[[], Any]], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each, in turn. The GPU waits for all launches of a measurement, so that the
    host's part isn't in it."""
    times: list[list[float]] = [[] for _ in candidates]
    for round_ in range(WARM_UP + rounds):
        for candidate, seen in zip(candidates, times, strict=True):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(WAIT_CYCLES)
            start.record()
            for _ in range(LAUNCHES):
                candidate()
            stop.record()
            stop.synchronize()
            if round_ >= WARM_UP:
                seen.append(start.elapsed_time(stop) / LAUNCHES)
    return [statistics.median(seen) for seen in times]


def measure(torch: Any, library: ctypes.CDLL, case: Case, cache_bytes: int) -> Result:
    """One case: first compared, then timed."""
    batch = case.batch(cache_bytes)
    problem = Problem(torch, case, batch)
    launch = problem.launcher(library)
    launch()
    torch.cuda.synchronize()
    error = problem.error()
    unfused = functools.partial(problem.unfused, problem.float_x, *problem.floats)
    kernel_ms, torch_ms, copy_ms = medians(torch, [launch, unfused, problem.copy])
    copy_gb_s = 2 * problem.copies[0].numel() / copy_ms / 1e6
    return Result(case, batch, kernel_ms, torch_ms, copy_gb_s, error)


def compare_variants(
    torch: Any, libraries: dict[str, ctypes.CDLL], case: Case, cache_bytes: int
) -> dict[str, float | None]:
    """The share of the copy's bandwidth that each variant reaches, None where it is wrong."""
    problem = Problem(torch, case, case.batch(cache_bytes))
    launches = {name: problem.launcher(library) for name, library in libraries.items()}
    right = []
    for name, launch in launches.items():
        problem.y.zero_()
        launch()
        torch.cuda.synchronize()
        if problem.error() <= case.tolerance():
            right.append(name)
    times = medians(torch, [problem.copy, *(launches[name] for name in right)], TUNING_ROUNDS)
    # the copy moves as many bytes as a kernel
    shares = dict(zip(right, (times[0] / time for time in times[1:]), strict=True))
    return {name: shares.get(name) for name in libraries}


def tune(torch: Any, folder: Path, architecture: str, cache_bytes: int) -> None:
    """Print which variant of shuffle_depthwise's kernel is the fastest, case by case."""

    def library(options: tuple[str, ...]) -> ctypes.CDLL:
        own = Path(tempfile.mkdtemp(dir=folder))
        compiled = compile_library(own, architecture, ["shuffle_depthwise"], options)
        return ctypes.CDLL(str(compiled))

    with ThreadPoolExecutor() as pool:
        found = dict(zip(VARIANTS, pool.map(library, VARIANTS.values()), strict=True))
    shares = {}
    for case in CASES:
        if case.op == "shuffle_depthwise":
            name = f"{case.dtype} {case}"
            shares[name] = compare_variants(torch, found, case, cache_bytes)
            torch.cuda.empty_cache()
    print(tuning_table(shares))


def gpu() -> Any:
    """PyTorch, if it has a GPU; GpuError that says what is missing."""
    try:
        import torch
    except ImportError:
        raise GpuError("PyTorch isn't installed; pip install torch, or --compile-only") from None
    if not torch.cuda.is_available():
        raise GpuError("PyTorch sees no CUDA GPU here; run this on one, or --compile-only")
    return torch


def main() -> int:
    """Exit code: 0 all goals reached, 1 some missed, 2 not run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--compile-only", action="store_true", help="compile the kernels and stop")
    parser.add_argument("--arch", help="for nvcc, as sm_90; the GPU's own by default")
    parser.add_argument("--only", choices=OPS, help="one operator")
    parser.add_argument("--tune", action="store_true", help="then compare the kernel's variants")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if options.compile_only:
                compile_library(Path(folder), options.arch or "sm_90")
                print(f"the kernels compile for {options.arch or 'sm_90'}")
                return 0
            return run(gpu(), Path(folder), options)
    except GpuError as error:
        print(error, file=sys.stderr)
        return 2


def run(torch: Any, folder: Path, options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    began = time.monotonic()
    only: str | None = options.only
    major, minor = torch.cuda.get_device_capability()
    architecture = options.arch or f"sm_{major}{minor}"
    about = torch.cuda.get_device_properties(0)
    library = ctypes.CDLL(
        str(compile_library(folder / "all", architecture, [only] if only else OPS))
    )
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cache = about.L2_cache_size
    print(f"{about.name}, compute capability {major}.{minor}, {cache >> 20} MiB cache")
    print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}; medians of {ROUNDS} rounds")
    results = []
    for case in CASES:
        if only in (None, case.op):
            results.append(measure(torch, library, case, cache))
            # one line each, so that a run that is cut short says something
            print(f"{case.op} {case.dtype} {case}: {results[-1].of_copy:.0%}", flush=True)
            torch.cuda.empty_cache()
    print(table(results))
    missed = sum(1 for result in results if result.misses())
    print(f"{len(results) - missed} of {len(results)} cases reach their goals", flush=True)
    if options.tune:
        tune(torch, folder, architecture, cache)
    print(f"took {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
