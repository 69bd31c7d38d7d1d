"""A graph that reduces its own tensors: what comes out is a few numbers, not whole activations.

Per tensor: the extremes over every value, where `finite_tensors` can't prove it finite by those a
mean that shows whether all values are, and a part of the values taken at equal distances. How is a
matter of speed. In ONNX Runtime convolutions pass each other a blocked layout, and whatever else
reads their values makes it undo that first. Pooling runs in that layout. So:

    high    GlobalMaxPool(x)
    low     -GlobalMaxPool(x times -1 by a depthwise 1x1 convolution), which is exact
    mean    GlobalAveragePool(x): a maximum may drop a NaN (SIMD's max(NaN, x) is x), a sum can't
    part    MaxPool(x) with a 1x1 kernel and a stride

and the first three, of all tensors, are joined before the layout is undone, once. The low end of a
ReLU or Clip isn't computed at all: it is the bound itself as soon as the part holds it (the
observer looks, and asks for a graph that computes it when it doesn't). A tensor has to be read
while the cache still holds it, see `observed_order`. MobileNetV2, ONNX Runtime 1.31, least ms of
one CPU per image: plain 4.4, observed 5.6, with a mean and an output for each tensor 6.1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.artifacts.model import Model, copy_proto
from deploy.observation.order import Joint, as_made, in_order
from deploy.observation.probes import Outlets, Port, Probe, coprime, grid

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
# channels of a block in the layout that ONNX Runtime gives convolutions: 8 (AVX2) or 16 (AVX-512)
_BLOCK = 16
# tensors whose extremes come out together: more save outputs, but the last ones are read late
_JOINED = 4


def observed_graph(
    model: Model,
    probes: Sequence[Probe],
    batch: int,
    exact_lows: Collection[str] | None = None,
    finite: Collection[str] = (),
) -> tuple[Model, list[Outlets]]:
    """The model with the probes' outputs in place of its own, and where they are, in order.

    batch: samples per run; where a tensor's first axis is that, every output has it too.
    exact_lows: tensors whose low end is computed although they have a bound; None: all.
    finite: tensors that need no mean.
    """
    proto = copy_proto(model.proto)
    del proto.graph.output[:]
    builder = _Builder(model.proto, proto, batch, exact_lows, finite)
    order = as_made(model.proto.graph, [probe.tensor for probe in probes])
    outlets = {index: builder.probe(index, probes[index]) for index in order}
    builder.join()
    ordered = in_order(
        model.proto.graph, [(probes[index].tensor, builder.added[index]) for index in order]
    )
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
    return model.derive(proto, ()), [outlets[index] for index in range(len(probes))]


@dataclass(frozen=True)
class _Tensor:
    """A tensor being probed: its name, its known sizes (None where free), what to prefix.

    finite: it needs no mean.
    """

    name: str
    dims: tuple[int | None, ...]
    prefix: str
    rowed: bool
    finite: bool

    @property
    def size(self) -> int | None:
        """Values of one sample."""
        dims = self.dims[1:] if self.rowed else self.dims
        return None if None in dims else math.prod(d or 0 for d in dims)


class _Builder:
    def __init__(
        self,
        source: onnx.ModelProto,
        proto: onnx.ModelProto,
        batch: int,
        exact_lows: Collection[str] | None,
        finite: Collection[str],
    ) -> None:
        self.graph = proto.graph
        self.batch = batch
        self.exact_lows = exact_lows
        self.finite = finite
        self.opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
        graph = source.graph
        self.types = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
        self.made = {o: node for node in graph.node for o in node.output}
        self.given = {i.name: i for i in graph.initializer}
        self.free = _batch_names(graph)
        self.prefix = "observed"
        while any(name.startswith(self.prefix) for name in (*self.types, *self.made, *self.given)):
            self.prefix += "_"
        self.constants: set[str] = set()
        self.blocked = any(node.op_type == "Conv" for node in graph.node)
        # per probe the nodes it brings
        self.added: dict[int, list[onnx.NodeProto]] = {}
        self.nodes: list[onnx.NodeProto] = []
        # what waits to be joined along the channels, with rows and without
        self.waiting: dict[bool, Joint] = {}
        self.joints = 0

    def probe(self, index: int, probe: Probe) -> Outlets:
        if len(self.added) % _JOINED == 0:
            self.join()
        self.nodes = self.added[index] = []
        dims = self.dims(probe.tensor)
        rowed = self.batch > 1 and dims[:1] == (self.batch,) and probe.axis != 0
        name, prefix = probe.tensor, f"{self.prefix}/{index}"
        if self.types[name].type.tensor_type.elem_type != TensorProto.FLOAT:
            name = self.node("Cast", [name], f"{prefix}/float", to=TensorProto.FLOAT)
        tensor = _Tensor(name, dims, prefix, rowed, probe.tensor in self.finite)
        small = tensor.size is not None and tensor.size <= probe.values
        if probe.axis is None and small:
            whole = self.node("Identity", [name], f"{prefix}/whole")
            return Outlets(values=self.out(whole), rowed=rowed)
        bound = None
        if probe.values and self.exact_lows is not None and probe.tensor not in self.exact_lows:
            bound = self.lower_bound(probe.tensor)
        found = self.extremes(tensor, probe.axis, lows=bound is None)
        found = replace(found, bound=bound, rowed=rowed)
        return self.part(tensor, probe.values, found) if probe.values else found

    def extremes(self, tensor: _Tensor, axis: int | None, *, lows: bool) -> Outlets:
        """Low, high and mean; the channel axis, if asked for, is kept."""
        rank = len(tensor.dims)
        if rank in (4, 5) and axis in (None, 1) and tensor.dims[1] is not None:
            return self.map_extremes(tensor, tensor.dims[1], lows)
        if axis is None:
            shape = [self.batch if tensor.rowed else 1, 1, -1]
            to = self.constant("shape/" + ",".join(map(str, shape)), np.array(shape))
            flat = self.node("Reshape", [tensor.name, to], f"{tensor.prefix}/flat")
            return self.reduced(tensor, flat, [2])
        kept = {axis, 0} if tensor.rowed else {axis}
        return self.reduced(tensor, tensor.name, [i for i in range(rank) if i not in kept])

    def map_extremes(self, tensor: _Tensor, channels: int, lows: bool) -> Outlets:
        name, prefix = tensor.name, tensor.prefix
        high = self.node("GlobalMaxPool", [name], f"{prefix}/high")
        mean = None
        if not tensor.finite:
            mean = self.node("GlobalAveragePool", [name], f"{prefix}/mean")
        blocked = self.blocked and channels % _BLOCK == 0 and len(tensor.dims) == 4
        rows = self.batch if tensor.rowed else 1
        if not blocked or name not in self.made or tensor.dims[0] != rows:
            found = Outlets(None, Port(self.out(high)), Port(self.out(mean)) if mean else None)
            if not lows:
                return found
            spatial = list(range(2, len(tensor.dims)))
            low = self.out(self.reduce("ReduceMin", name, spatial, f"{prefix}/low"))
            return replace(found, low=Port(low))
        found = Outlets(
            None,
            self.joint(tensor, high, channels),
            self.joint(tensor, mean, channels) if mean else None,
        )
        if not lows:
            return found
        minus = self.constant(f"minus/{channels}", -np.ones((channels, 1, 1, 1), np.float32))
        turned = self.node("Conv", [name, minus], f"{prefix}/turned", group=channels)
        low = self.node("GlobalMaxPool", [turned], f"{prefix}/low")
        return replace(found, low=self.joint(tensor, low, channels), low_negated=True)

    def joint(self, tensor: _Tensor, name: str, channels: int) -> Port:
        """The place of a pooled [N, channels, 1, 1] in an output that joins several."""
        joint = self.waiting.get(tensor.rowed)
        if joint is None:
            joint = Joint(f"{self.prefix}/joined/{self.joints}", self.nodes)
            self.waiting[tensor.rowed] = joint
            self.joints += 1
        joint.names.append(name)
        joint.channels += channels
        return Port(joint.out, joint.channels - channels, joint.channels)

    def join(self) -> None:
        """Make the outputs of all joints begun."""
        for joint in self.waiting.values():
            # beside what the first tensor brings: with it everything is asked for that is joined
            self.nodes = joint.nodes
            self.out(self.node("Concat", joint.names, joint.out, axis=1))
        self.waiting = {}

    def reduced(self, tensor: _Tensor, name: str, axes: list[int]) -> Outlets:
        if not axes:
            whole = self.out(self.node("Identity", [name], f"{tensor.prefix}/whole"))
            return Outlets(Port(whole), Port(whole), Port(whole))
        wanted = [("Min", "low"), ("Max", "high"), ("Mean", "mean")][: 2 if tensor.finite else 3]
        low, high, *mean = (
            Port(self.out(self.reduce(f"Reduce{op}", name, axes, f"{tensor.prefix}/{suffix}")))
            for op, suffix in wanted
        )
        return Outlets(low, high, mean[0] if mean else None)

    def reduce(self, op: str, name: str, axes: list[int], out: str) -> str:
        if self.opset < 18:
            return self.node(op, [name], out, axes=axes, keepdims=0)
        by = self.constant("axes/" + ",".join(map(str, axes)), np.array(axes))
        return self.node(op, [name, by], out, keepdims=0)

    def part(self, tensor: _Tensor, most: int, found: Outlets) -> Outlets:
        """Values at equal distances along the flattened tensor, or on a grid over a map."""
        if tensor.size is None:
            return self.part_of_any_size(tensor, most, found)
        if len(tensor.dims) == 4 and tensor.name in self.made:
            _, channels, height, width = (d or 1 for d in tensor.dims)
            if channels <= most:
                strides = grid(channels, height, width, most)
                name = self.node(
                    "MaxPool",
                    [tensor.name],
                    f"{tensor.prefix}/part",
                    kernel_shape=[1, 1],
                    strides=list(strides),
                )
                count = channels * -(-height // strides[0]) * -(-width // strides[1])
                return replace(found, values=self.out(name), step=max(1, tensor.size // count))
        step = coprime(-(-tensor.size // most), tensor.size)
        by = self.constant(f"step/{step}", np.array([step]))
        return replace(found, values=self.sliced(tensor, by), step=step)

    def part_of_any_size(self, tensor: _Tensor, most: int, found: Outlets) -> Outlets:
        """The same, the step computed as the model runs."""
        size = self.node("Size", [tensor.name], f"{tensor.prefix}/size")
        total = most * (self.batch if tensor.rowed else 1)
        parts = self.node(
            "Div", [size, self.constant("most", np.array(total))], f"{tensor.prefix}/parts"
        )
        one = self.constant("one", np.array([1]))
        step = self.node("Add", [parts, one], f"{tensor.prefix}/step")
        told = self.out(step, TensorProto.INT64)
        return replace(found, values=self.sliced(tensor, step), step=None, told_step=told)

    def sliced(self, tensor: _Tensor, step: str) -> str:
        shape = [self.batch, -1] if tensor.rowed else [-1]
        to = self.constant("shape/" + ",".join(map(str, shape)), np.array(shape))
        flat = self.node("Reshape", [tensor.name, to], f"{tensor.prefix}/values")
        zero, last = self.constant("zero", np.array([0])), self.constant("last", np.array([-1]))
        end = self.constant("end", np.array([np.iinfo(np.int64).max]))
        return self.out(self.node("Slice", [flat, zero, end, last, step], f"{tensor.prefix}/part"))

    def lower_bound(self, name: str) -> float | None:
        """The least value that the node making this tensor can give, where that is known."""
        node = self.made.get(name)
        if node is None:
            return None
        if node.op_type == "Relu":
            return 0.0
        if node.op_type != "Clip" or len(node.input) < 2 or node.input[1] not in self.given:
            return None
        low = numpy_helper.to_array(self.given[node.input[1]])
        return float(low) if low.size == 1 and low.dtype == np.float32 else None

    def dims(self, name: str) -> tuple[int | None, ...]:
        """Known sizes; a free batch axis is as long as a run makes it."""
        return tuple(
            d.dim_value
            if d.HasField("dim_value") and d.dim_value > 0
            else (self.batch if d.dim_param and d.dim_param in self.free else None)
            for d in self.types[name].type.tensor_type.shape.dim
        )

    def node(self, op: str, inputs: list[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def constant(self, suffix: str, value: np.ndarray) -> str:
        name = f"{self.prefix}/constant/{suffix}"
        if name not in self.constants:
            self.constants.add(name)
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def out(self, name: str, kind: int = TensorProto.FLOAT) -> str:
        self.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        return name


def _batch_names(graph: onnx.GraphProto) -> set[str]:
    """The name of the free size that every input begins with: the batch, as long as a run's."""
    given = {i.name for i in graph.initializer}
    shapes = [v.type.tensor_type.shape.dim for v in graph.input if v.name not in given]
    names = {dims[0].dim_param for dims in shapes if dims}
    return names if len(names) == 1 and "" not in names else set()
