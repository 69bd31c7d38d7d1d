"""SePointwise as an ahead-of-time Python plugin of TensorRT 10.9 and later: its kernel lies in the
engine as PTX, so neither a library nor Python is needed where the engine runs.

TensorRT's ONNX parser finds it by the node's domain. It knows no default values and no optional
inputs: the node has to spell out both scales, the bias and w_scale (read for int8 only).
Annotations are read by TensorRT at run time, which is why this file doesn't postpone them.
"""

from collections.abc import Callable

KERNEL = "onnx_deploy_se_pointwise"
TILE = 64  # output channels and positions per block
# by TensorRT's name of x's type: CUDA's of x and of w, their numbers in SePointwiseParams, threads
# and bytes of shared memory per block
FORMS = {
    "FLOAT": ("float", "float", 0, 0, 256, 8704),
    "HALF": ("__half", "__half", 1, 1, 128, 17408),
    "INT8": ("signed char", "float", 2, 0, 128, 17408),
}


def kernel_source(x_type: str, x_scale: float, y_scale: float) -> str:
    """CUDA source of the kernel: pointers of inputs, shape, pointer of the output."""
    x, w, number, w_number, threads, shared = FORMS[x_type]
    job = f"Job<{x}, {w}>"
    return f"""
#include "kernel.cuh"

using namespace se_pointwise;
using Side = Beside<{x}>::Type;
static_assert(Block<{x}>::kThreads == {threads} && Block<{x}>::kShared == {shared} &&
                  kTile == {TILE}, "the launch fits the kernel");

extern "C" __global__ void __launch_bounds__({threads}) {KERNEL}(
    {x} const* x, Side const* scale, {w} const* w, Side const* bias, float const* w_scale,
    int batch, int channels, int out_channels, int positions, {x}* y) {{
  SePointwiseParams const p{{{number}, {w_number}, batch, channels, out_channels, positions,
                            {x_scale:.9e}f, {y_scale:.9e}f}};
  int const whole_x = positions * sizeof({x}) % 16 == 0;
  int const whole_w = channels * sizeof({w}) % 16 == 0 && channels * sizeof(Side) % 16 == 0;
  {job} const job{{p, x, scale, w, bias, w_scale, y, whole_x, positions % 4 == 0, whole_w}};
  block_of_y(job);
}}
"""


def register(to_ptx: Callable[[str], bytes]) -> None:
    """Makes the op known to this process's TensorRT; `to_ptx`: CUDA source to PTX."""
    import tensorrt.plugin as trtp

    @trtp.register("onnx_deploy::SePointwise")
    def describe(
        x: trtp.TensorDesc,
        scale: trtp.TensorDesc,
        w: trtp.TensorDesc,
        bias: trtp.TensorDesc,
        w_scale: trtp.TensorDesc,
        x_scale: float,
        y_scale: float,
    ) -> trtp.TensorDesc:
        y = x.like()
        y.shape_expr[1] = w.shape_expr[0]
        return y

    @trtp.autotune("onnx_deploy::SePointwise")
    def types(x, scale, w, bias, w_scale, x_scale, outputs):
        floats = "FP32|FP16, FP32|FP16, FP32|FP16, FP32|FP16, FP32, FP32|FP16"
        int8 = "INT8, FP32, FP32, FP32, FP32, INT8"
        given = [floats, int8] if x_scale > 0 else [floats]
        return [trtp.AutoTuneCombination(each, "LINEAR") for each in given]

    # in the order of `describe` and complete: TensorRT hands over every attribute
    @trtp.aot_impl("onnx_deploy::SePointwise")
    def compile_kernel(
        x, scale, w, bias, w_scale, x_scale, y_scale, outputs, tactic
    ) -> tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        shape = x.shape_expr
        channels, positions = w.shape_expr[0], shape[2] * shape[3]
        launch = trtp.KernelLaunchParams()
        launch.grid_x = trtp.cdiv(channels, TILE) * trtp.cdiv(positions, TILE)
        launch.grid_y = trtp.min(shape[0], 65535)
        launch.block_x, launch.shared_mem = FORMS[x.dtype.name][4:]
        sizes = (shape[0], shape[1], channels, positions)
        exprs = trtp.SymIntExprs.from_tuple([trtp.SymInt32(size) for size in sizes])
        return KERNEL, to_ptx(kernel_source(x.dtype.name, x_scale, y_scale)), launch, exprs
