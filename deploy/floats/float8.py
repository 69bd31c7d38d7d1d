"""Float8 in a graph: its constants, and what quantizes there, for NVIDIA's GPUs from Ada on.

NumPy has no float8, so values are float32 on E4M3's grid until they are written.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from calibrators.float8 import Float8, float8_activation, float8_weight
from calibrators.ranges import Affine, Range, activation_params, weight_params
from deploy.artifacts.model import Model
from deploy.target import Quantization

FLOAT8 = int(TensorProto.FLOAT8E4M3FN)
# what a tensor of it is called, and the opset and format that brought it
NAME = "float8e4m3fn"
OPSET, IR_VERSION = 19, 9

Params = Affine | Float8


def activation(range_: Range, form: Quantization) -> Params:
    """The parameters of an activation in the form's type."""
    if form.activation_dtype == NAME:
        return float8_activation(range_)
    return activation_params(range_, form.activation_dtype, form.activation_symmetric)


def weight(values: np.ndarray, axis: int | None, form: Quantization) -> Params:
    """The parameters of a weight, per index of `axis` where the form has such scales."""
    axis = axis if form.weight_per_channel else None
    if form.activation_dtype == NAME:
        return float8_weight(values, axis)
    return weight_params(values, axis, form.weight_bits)


def code_type(params: Params) -> np.dtype | int:
    """The type of the quantized values, as graphsurgeon names it."""
    return FLOAT8 if isinstance(params, Float8) else params.zero_point.dtype


def zero_point(params: Params) -> np.ndarray:
    """What stands for 0.0: of the scale's shape."""
    if isinstance(params, Float8):
        return np.zeros(params.scale.shape, np.float32)
    return params.zero_point


def tensor(values: np.ndarray, params: Params, name: str) -> onnx.TensorProto:
    """Quantized values as they are stored."""
    if not isinstance(params, Float8):
        return numpy_helper.from_array(values, name)
    stored = values.astype(helper.tensor_dtype_to_np_dtype(FLOAT8))
    return helper.make_tensor(name, FLOAT8, values.shape, stored.tobytes(), raw=True)


def constant(values: np.ndarray, params: Params, name: str) -> gs.Constant:
    """Quantized values as a weight of a linked graph."""
    if not isinstance(params, Float8):
        return gs.Constant(name, values)
    return gs.Constant(name, LazyValues(tensor(values, params, name)))


def holds_float8(model: Model) -> bool:
    """Whether a graph quantizes to float8."""
    return any(weight.data_type == FLOAT8 for weight in model.proto.graph.initializer)
