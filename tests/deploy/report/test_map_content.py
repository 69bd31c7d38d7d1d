"""What the precision map knows of every node: type and who says so, kernel, decisions, boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser
from report_content import analysed, decision, int8_content

from deploy.artifacts.model import Model
from deploy.report.map_boxes import boxes
from deploy.report.map_content import graph_map
from deploy.report.map_decisions import owners
from deploy.report.map_kernels import kernels

GRAPH = """
<ir_version: 8, opset_import: ["" : 17, "onnx_deploy" : 1]>
g (float[1,4,6,5] x) => (float[1,4,6,5] y)
<float[4,1,3,3] w, float[4,4,1,1] v>
{
  conv = Conv <group: int = 4, pads = [1,1,1,1], kernel_shape = [3,3]> (x, w)
  relu = Relu (conv)
  turned = Transpose <perm = [0,2,3,1]> (relu)
  back = Transpose <perm = [0,3,1,2]> (turned)
  second = Conv <kernel_shape = [1,1], strides = [2,2]> (back, v)
  own = onnx_deploy.channel_shuffle <groups: int = 2> (second)
  y = Add (own, relu)
}
"""


def model(text: str = GRAPH) -> Model:
    proto = parser.parse_model(text)
    for node in proto.graph.node:
        node.name = f"{node.op_type}_{node.output[0]}"
    for name, shape in (("w", (4, 1, 3, 3)), ("v", (4, 4, 1, 1))):
        for index, tensor in reversed(list(enumerate(proto.graph.initializer))):
            if tensor.name == name:
                del proto.graph.initializer[index]
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    return Model(proto, "g")


def vendor(name: str, kind: str, precision: str, *origins: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "precision": precision,
        "kernel": f"{kind.lower()}_kernel",
        "fused_from": list(origins),
    }


def content(layers: list[dict[str, Any]]) -> dict[str, Any]:
    found = int8_content()
    names = {f"{n.op_type}_{n.output[0]}": 100.0 for n in model().proto.graph.node}
    found["roofline"]["built"] = analysed(names)
    for row in found["roofline"]["built"]["layers"]:
        row["precision"] = "int8" if row["name"].startswith("Conv") else "fp32"
    found["layers"] = layers
    found["layer_errors"] = [{"tensor": "relu", "operator": "Relu", "sqnr_db": 33.5, "cosine": 1.0}]
    found["decisions"] = []
    return found


LISTED = [
    vendor("Conv_conv", "Convolution", "u8", "Conv_conv", "relu/quantized/QuantizeLinear"),
    vendor("reorder", "Reorder", "bf16", "Conv_second"),
    vendor("Conv_second", "Convolution", "bf16", "Conv_second"),
    vendor("Add_y", "Eltwise", "f32", "Add_y"),
]


def quantized() -> Model:
    """Only what the map looks at: a conversion behind `relu`."""
    node = helper.make_node("QuantizeLinear", ["relu"], ["q"], "relu/quantized/QuantizeLinear")
    return Model(helper.make_model(helper.make_graph([node], "q", [], [])), "g")


def found(layers: list[dict[str, Any]] = LISTED) -> dict[str, Any]:
    return graph_map({"fused": model(), "quantized": quantized()}, content(layers), None)


class TestTypes:
    def test_the_vendor_tells_and_the_map_says_that_it_does(self) -> None:
        types = [(n["operator"], n["type"], n["type_from"]) for n in found()["nodes"]]
        assert types == [
            ("Conv", "int8", "vendor"),
            ("Relu", "int8", "joined"),  # its conversion to INT8 is named in the kernel
            ("Transpose", "moves", "graph"),
            ("Transpose", "moves", "graph"),
            ("Conv", "bf16", "vendor"),  # the copy in front is not what computes it
            ("channel_shuffle", "plugin", "graph"),
            ("Add", "fp32", "vendor"),
        ]

    def test_without_a_list_the_graph_tells(self) -> None:
        types = [(n["type"], n["type_from"]) for n in found([])["nodes"]]
        # what the convolution takes in is stored nowhere in between
        assert types[0] == types[1] == ("int8", "graph") and types[-1] == ("fp32", "graph")
        assert not found([])["listed"]

    def test_on_a_device_the_rest_is_what_it_is_built_in(self) -> None:
        given = content([])
        given["device"] = {"rest": "fp16"}
        nodes = graph_map({"fused": model()}, given, None)["nodes"]
        assert [nodes[0]["type"], nodes[-1]["type"]] == ["int8", "fp16"]

    def test_numbers_come_from_the_rest_of_the_report(self) -> None:
        nodes = found()["nodes"]
        assert nodes[1]["sqnr_db"] == 33.5 and nodes[0]["sqnr_db"] is None
        expected = {"flops": 100.0, "bytes": 1000, "bound": "memory", "ms": pytest.approx(0.004)}
        assert nodes[0]["cost"] == expected

    def test_convolutions_are_told_apart(self) -> None:
        nodes = found()["nodes"]
        assert [nodes[i]["detail"] for i in (0, 4)] == ["3×3 dw", "1×1 /2"]


class TestGraph:
    def test_edges_and_ports(self) -> None:
        graph = found()
        edges = [[0, 1], [1, 2], [1, 6], [2, 3], [3, 4], [4, 5], [5, 6]]
        assert graph["edges"] == edges
        assert (graph["inputs"], graph["outputs"]) == ({"x": [0]}, {"y": 6})

    def test_one_kernel_and_moves_in_a_row_share_a_box(self) -> None:
        assert found()["boxes"] == [[0, 1], [2, 3], [4], [5], [6]]

    def test_without_a_list_an_activation_joins_its_layer(self) -> None:
        assert found([])["boxes"] == [[0, 1], [2, 3], [4], [5], [6]]

    def test_a_box_never_stands_on_both_sides_of_another(self) -> None:
        """conv -> sum and conv -> relu -> sum, conv and sum of one kernel: joined they'd be
        before relu and behind it."""
        kernel = {"name": "k"}
        row = {"type": "int8", "operator": "Conv", "kernel": kernel}
        nodes = [row, {**row, "operator": "Relu", "kernel": None}, {**row, "operator": "Add"}]
        assert boxes(nodes, [(0, 1), (0, 2), (1, 2)], ()) == [[0], [1], [2]]

    def test_a_graph_output_stays_in_sight(self) -> None:
        row = {"type": "moves", "operator": "Reshape", "kernel": None}
        assert boxes([row, row], [(0, 1)], ()) == [[0, 1]]
        assert boxes([row, row], [(0, 1)], {0}) == [[0], [1]]


class TestKernels:
    def nodes(self) -> list[Any]:
        return list(model().proto.graph.node)

    def test_a_name_made_from_the_output_is_enough(self) -> None:
        listed = [vendor("own/Gather", "Gather", "f32", "own/expanded/Gather_0/Gather")]
        run = kernels(self.nodes(), None, listed)
        assert (run[5]["name"], run[5]["names_it"]) == ("own/Gather", False)
        assert set(run) == {5}

    def test_what_is_only_added_to_a_layer_names_it(self) -> None:
        text = GRAPH.replace("y = Add (own, relu)", "y = Add (second, v)").replace(
            "own = onnx_deploy.channel_shuffle <groups: int = 2> (second)", ""
        )
        listed = [vendor("fc", "FullyConnected", "bf16", "Add_y")]
        run = kernels(list(model(text).proto.graph.node), None, listed)
        assert (run[4]["name"], run[4]["names_it"]) == ("fc", False)
        # a sum that the vendor runs by itself says nothing of the layer in front
        alone = [vendor("add", "Eltwise", "f32", "Add_y")]
        assert 4 not in kernels(list(model(text).proto.graph.node), None, alone)

    def test_a_layer_that_multiplies_never_vanishes_in_the_one_in_front(self) -> None:
        listed = [vendor("t", "Transpose", "f32", "Transpose_back")]
        run = kernels(self.nodes(), None, listed)
        assert set(run) == {3}

    def test_an_output_of_the_model_lends_its_name(self) -> None:
        run = kernels(self.nodes(), None, [vendor("gemm", "FullyConnected", "u8", "y")])
        assert run[6]["names_it"] and run[6]["name"] == "gemm"


class TestDecisions:
    def test_each_is_given_to_the_node_it_became(self) -> None:
        loaded = """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,4,6,5] x) => (float[1,4,6,5] y)
        <float[4,1,3,3] w>
        {
          raw = Conv <group: int = 4, pads = [1,1,1,1]> (x, w)
          conv = Mul (raw, raw)
          gone = Identity (conv)
          relu = Relu (gone)
          y = Neg (relu)
        }
        """
        proto = parser.parse_model(loaded)
        for node in proto.graph.node:
            node.name = f"old_{node.output[0]}"
        given = owners({"loaded": Model(proto, "g"), "fused": model()}, model())
        assert given["old_raw"] == 0  # its nearest reader writes `conv`, and so does node 0
        assert given["old_conv"] == 0
        assert given["old_gone"] == 1  # the node that read it is still there
        assert given["w"] == 0 and given["relu"] == 1
        assert "elsewhere" not in given

    def test_notes_are_left_out(self) -> None:
        row = content(LISTED)
        row["decisions"] = [
            decision("quantize", "activation", "note", "relu", "nothing"),
            decision("quantize", "activation", "skipped", "relu", "not now"),
            decision("quantize", "weight", "applied", "w", "int8"),
            decision("fuse", "rule", "applied", "elsewhere", "of nothing here"),
        ]
        nodes = graph_map({"fused": model()}, row, None)["nodes"]
        assert [n["decisions"] for n in nodes[:2]] == [[2], [1]]
