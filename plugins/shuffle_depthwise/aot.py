"""ShuffleDepthwise as an ahead-of-time Python plugin of TensorRT 10.9 and later: its kernel lies in
the engine as PTX, so neither a library nor Python is needed where the engine runs.

TensorRT's ONNX parser finds it by the node's domain. It knows no default values and no optional
inputs: the node has to spell out every attribute, the bias and w_scale (read for int8 only). It
launches one kernel without shared memory; the library of plugins/CMakeLists.txt is faster.
Annotations are read by TensorRT at run time, which is why this file doesn't postpone them; and
arrays of integers come as bytes, since 10.x refuses NumPy's annotations from Python 3.11 on.
"""

import array
from collections.abc import Callable

BLOCK_THREADS = 256
KERNEL = "onnx_deploy_shuffle_depthwise"
# by TensorRT's name of x's type: CUDA's, its number in ShuffleDepthwiseParams, and that of w's
FORMS = {"FLOAT": ("float", 0, 0), "HALF": ("__half", 1, 1), "INT8": ("signed char", 2, 0)}


def integers(data: bytes, count: int) -> list[int]:
    """What an INTS attribute of `count` entries holds: int32, in later parsers maybe int64."""
    return list(array.array("i" if len(data) == 4 * count else "q", data))


def kernel_source(x_type: str, kernel: int, **attributes) -> str:
    """CUDA source of the kernel: pointers of inputs, shape, pointer of the output."""
    word, number, w_number = FORMS[x_type]
    constants = ", ".join(
        [
            *(str(value) for value in (attributes["groups"], kernel, attributes["strides"][0])),
            *(str(pad) for pad in attributes["pads"]),
            str(int(attributes["activation"].strip("\0") == "Relu")),
            *(f"{attributes[name]:.9e}f" for name in ("x_scale", "y_scale")),
        ]
    )
    return f"""
#include "plain.cuh"

extern "C" __global__ void {KERNEL}({word} const* x, void const* w, void const* bias,
                                    float const* w_scale, int batch, int channels, int height,
                                    int width, {word}* y) {{
  ShuffleDepthwiseParams const p{{{number}, {w_number}, batch, channels, height, width,
                                 {constants}}};
  shuffle_depthwise::plain<{word}>(p, x, w, bias, w_scale, y);
}}
"""


def register(to_ptx: Callable[[str], bytes]) -> None:
    """Makes the op known to this process's TensorRT; `to_ptx`: CUDA source to PTX."""
    import tensorrt.plugin as trtp

    @trtp.register("onnx_deploy::ShuffleDepthwise")
    def describe(
        x: trtp.TensorDesc,
        w: trtp.TensorDesc,
        bias: trtp.TensorDesc,
        w_scale: trtp.TensorDesc,
        groups: int,
        strides: bytes,
        pads: bytes,
        activation: str,
        x_scale: float,
        y_scale: float,
    ) -> trtp.TensorDesc:
        y = x.like()
        added, step = integers(pads, 4), integers(strides, 2)
        for side in (0, 1):
            padded = x.shape_expr[2 + side] + (added[side] + added[2 + side])
            steps = (padded - w.shape_expr[2 + side]) // step[side]
            y.shape_expr[2 + side] = steps + 1
        return y

    @trtp.autotune("onnx_deploy::ShuffleDepthwise")
    def types(x, w, bias, w_scale, x_scale, outputs):
        floats = "FP32|FP16, FP32|FP16, FP32|FP16, FP32, FP32|FP16"
        int8 = "INT8, FP32, FP32, FP32, INT8"
        given = [floats, int8] if x_scale > 0 else [floats]
        return [trtp.AutoTuneCombination(each, "LINEAR") for each in given]

    # in the order of `describe` and complete: TensorRT hands over every attribute
    @trtp.aot_impl("onnx_deploy::ShuffleDepthwise")
    def compile_kernel(
        x, w, bias, w_scale, groups, strides, pads, activation, x_scale, y_scale, outputs, tactic
    ) -> tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        source = kernel_source(
            x.dtype.name,
            int(w.shape[2]),
            groups=groups,
            strides=integers(strides, 2),
            pads=integers(pads, 4),
            activation=activation,
            x_scale=x_scale,
            y_scale=y_scale,
        )
        launch = trtp.KernelLaunchParams()
        launch.grid_x = trtp.cdiv(outputs[0].shape_expr.numel(), BLOCK_THREADS)
        launch.block_x = BLOCK_THREADS
        sizes = trtp.SymIntExprs.from_tuple([trtp.SymInt32(size) for size in x.shape_expr])
        return KERNEL, to_ptx(source), launch, sizes
