"""ChannelShuffle as an ahead-of-time Python plugin of TensorRT 10.9 and later: its kernel lies in
the engine as PTX, so neither a library nor Python is needed where the engine runs.

TensorRT's ONNX parser finds it by the node's domain. It knows no default values and no optional
inputs: the node has to spell out every attribute. Annotations are read by TensorRT at run time,
which is why this file doesn't postpone them.
"""

from collections.abc import Callable

KERNEL = "onnx_deploy_channel_shuffle"
# threads that share a channel's map, and maps per block
BLOCK = (64, 4)


def kernel_source(element_bytes: int, groups: int) -> str:
    """CUDA source of the kernel: pointers of inputs, shape, pointer of the output."""
    return f"""
#include "kernel.cuh"

extern "C" __global__ void {KERNEL}(void const* x, int batch, int channels, int positions,
                                    void* y) {{
  ChannelShuffleParams const p{{{element_bytes}, batch, channels, {groups}, positions}};
  channel_shuffle::copy_maps(p, x, y);
}}
"""


def register(to_ptx: Callable[[str], bytes]) -> None:
    """Makes the op known to this process's TensorRT; `to_ptx`: CUDA source to PTX."""
    import tensorrt as trt
    import tensorrt.plugin as trtp

    bytes_of = {trt.float32: 4, trt.float16: 2, trt.int8: 1}

    @trtp.register("onnx_deploy::ChannelShuffle")
    def describe(x: trtp.TensorDesc, groups: int) -> trtp.TensorDesc:
        return x.like()

    @trtp.autotune("onnx_deploy::ChannelShuffle")
    def types(x, outputs):
        return [trtp.AutoTuneCombination("FP32|FP16|INT8, FP32|FP16|INT8", "LINEAR")]

    # with every attribute: TensorRT hands over all of them
    @trtp.aot_impl("onnx_deploy::ChannelShuffle")
    def compile_kernel(
        x, groups, outputs, tactic
    ) -> tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        shape = x.shape_expr
        positions = shape[2] if len(shape) > 2 else 1
        for i in range(3, len(shape)):
            positions = positions * shape[i]
        launch = trtp.KernelLaunchParams()
        launch.grid_x = trtp.cdiv(shape[0] * shape[1], BLOCK[1])
        launch.block_x, launch.block_y = BLOCK
        sizes = trtp.SymIntExprs.from_tuple(
            [trtp.SymInt32(size) for size in (shape[0], shape[1], positions)]
        )
        return KERNEL, to_ptx(kernel_source(bytes_of[x.dtype], groups)), launch, sizes
