"""What real `tensorrt.plugin` decorators make of our ahead-of-time plugins, as JSON: run by
test_tensorrt_aot.py in a Python that the bindings were built for.

    python in_plugin_api.py BINDINGS_FOLDER PLUGINS_FOLDER

No TensorRT library and no GPU: a registry that only keeps, and sizes that are plain numbers, stand
in for them. The compiler is one that returns the source.
"""

import array
import importlib.util
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLOATS = {"x_scale": 0.0, "y_scale": 0.0}
INT8 = {"x_scale": 0.5, "y_scale": 0.25}
SHUFFLE = {"groups": [3], "strides": [2, 2], "pads": [1, 0, 1, 2], "activation": "Relu"}
# per op: attributes of a node, shapes of its inputs, types of them
NODES = [
    ("channel_shuffle", {"groups": [4]}, [(2, 12, 5, 7)], ["INT8"]),
    ("channel_shuffle", {"groups": [4]}, [(2, 12)], ["HALF"]),
    (
        "shuffle_depthwise",
        {**SHUFFLE, **FLOATS},
        [(2, 12, 11, 9), (12, 1, 3, 3), (12,), (12,)],
        ["HALF", "HALF", "HALF", "FLOAT"],
    ),
    (
        "shuffle_depthwise",
        {**SHUFFLE, **INT8},
        [(2, 12, 11, 9), (12, 1, 5, 5), (12,), (12,)],
        ["INT8", "FLOAT", "FLOAT", "FLOAT"],
    ),
    (
        "se_pointwise",
        {**FLOATS},
        [(2, 6, 5, 7), (2, 6, 1, 1), (130, 6, 1, 1), (130,), (130,)],
        ["FLOAT"] * 5,
    ),
    (
        "se_pointwise",
        {**INT8},
        [(2, 6, 50, 7), (2, 6, 1, 1), (10, 6, 1, 1), (10,), (10,)],
        ["INT8", "FLOAT", "FLOAT", "FLOAT", "FLOAT"],
    ),
]


def module_of(name, file):
    """A module by its path, under a name that no wheel's package has."""
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Registry:
    """A plugin registry that keeps what is registered."""

    def __init__(self):
        self.creators = {}

    def register_creator(self, creator, namespace=""):
        self.creators[f"{namespace}::{creator.name}"] = creator
        return True

    def get_creator(self, name, version, namespace=""):
        return self.creators.get(f"{namespace}::{name}")


class Size:
    """A size that TensorRT would know only while building."""

    def __init__(self, value):
        self.value = value

    def is_constant(self):
        return True

    def get_constant_value(self):
        return self.value


class Sizes:
    """TensorRT's builder of sizes, in plain numbers."""

    def constant(self, value):
        return Size(value)

    def operation(self, op, first, second):
        a, b = first.value, second.value
        return Size(
            {
                "SUM": a + b,
                "SUB": a - b,
                "PROD": a * b,
                "FLOOR_DIV": a // b if b else 0,
                "CEIL_DIV": -(-a // b) if b else 0,
                "MIN": min(a, b),
                "MAX": max(a, b),
            }[op.name]
        )


def fields(trt, attributes):
    """A PluginFieldCollection as the ONNX parser makes it."""
    made = []
    for name, value in attributes.items():
        if isinstance(value, str):
            data, kind = array.array("b", value.encode() + b"\0"), trt.PluginFieldType.CHAR
        elif isinstance(value, float):
            data, kind = array.array("f", [value]), trt.PluginFieldType.FLOAT32
        else:
            data, kind = array.array("i", value), trt.PluginFieldType.INT32
        _kept.append(data)
        made.append(trt.PluginField(name, data, kind))
    return trt.PluginFieldCollection(made)


_kept = []


def described(trt, trtp, shape, kind):
    """A tensor as the plugin's functions get it while an engine is built."""
    return trtp.TensorDesc(trtp.ShapeExprs.from_tuple(shape), getattr(trt.DataType, kind))


def numbers(expressions):
    return [expression._expr.value for expression in expressions]


def asked(trt, trtp, registry, node):
    """What the plugin of one node says, asked as the bindings' own plugin class asks."""
    folder, attributes, shapes, kinds = node
    name = "".join(part.capitalize() for part in folder.split("_"))
    creator = registry.creators[f"onnx_deploy::{name}"]
    plugin = creator.create_plugin(
        name,
        "onnx_deploy",
        fields(trt, attributes),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    _kept.append(plugin)
    inputs = [described(trt, trtp, s, k) for s, k in zip(shapes, kinds, strict=True)]
    output = plugin.register_function(*inputs, **plugin.attrs)
    for tensor, shape in zip(inputs, shapes, strict=True):
        tensor._shape = trtp.Shape(shape)  # known from here on
    tuned = [plugin.attrs[key] for key in plugin.autotune_attr_names]
    combinations = [
        "-".join(kind.name for kind in each.types)
        for given in plugin.autotune_function(*inputs, *tuned, (output,))
        for each in given._get_combinations()
    ]
    # every attribute, in the order of the fields: as get_launch_params does
    kernel, ptx, launch, extra = plugin.aot_impl_function(
        *inputs, *plugin.attrs.values(), (output,), 0
    )
    names = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")
    return {
        "op": folder,
        "shape": numbers(output.shape_expr),
        "type": output.dtype.name,
        "combinations": combinations,
        "kernel": kernel,
        "source": ptx.decode(),
        "launch": {name: getattr(launch, name)._expr.value for name in names},
        "extra": numbers(extra),
    }


def main(site, plugins):
    trt = module_of("bindings_loader", HERE.parent / "stubbed_tensorrt.py").load(site)
    sys.modules.setdefault("tensorrt", trt)  # the plugin package imports it by this name
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    trt.IDimensionExpr = Size
    import tensorrt.plugin as trtp
    from tensorrt.plugin import _tensor

    for folder in ("channel_shuffle", "shuffle_depthwise", "se_pointwise"):
        module_of(f"aot_{folder}", plugins / folder / "aot.py").register(str.encode)
    _tensor.SymIntExpr._exprBuilder = Sizes()
    found = [asked(trt, trtp, registry, node) for node in NODES]
    return {"version": trt.__version__, "nodes": found}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
    sys.stdout.flush()
    os._exit(0)  # the bindings' clean-up expects the library that isn't there
