"""load: every kind of file people hand over, and the error that names what is wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest
from helpers import MODELS, assert_same_numbers, model_from, ops, run, weight
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from deploy.artifacts.model import Model, copy_proto
from deploy.backends import reference
from deploy.errors import DeployError, ModelError, RecipeError
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.simplify import simplify

SMALL = model_from(
    """
    g (float[N,3,8,6] x, bool q) => (float[N,4] y) {
        c = Conv<pads=[1,1,1,1]>(x, w, b)
        k = Constant<value: tensor = float[4,1,1] {0.5, 1.5, -2.0, 3.0}>()
        m = Mul(c, k)
        r = Reshape(m, s)
        a = ReduceMean<axes=[2], keepdims=0>(r)
        y = If (q) <
            then_branch = t () => (float[N,4] u) { u = Relu(a) },
            else_branch = e () => (float[N,4] v) { v = Neg(a) }
        >
    }
    """,
    {"w": weight(4, 3, 3, 3), "b": weight(4), "s": np.array([0, 4, -1])},
)


def written(folder: Path, content: bytes, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def relu(dims: str = "N,3", **options: int) -> Model:
    return model_from(f"g (float[{dims}] x) => (float[{dims}] y) {{ y = Relu(x) }}", **options)


# ---- the file


def test_a_good_file_loads(tmp_path: Path) -> None:
    source = read(written(tmp_path, SMALL.serialized, "small.onnx"))
    loaded = load(source)
    assert (loaded.name, loaded.opset, loaded.decisions) == ("small", 17, ())
    assert [str(s) for s in loaded.inputs] == ["x float32[N,3,8,6]", "q bool[]"]
    assert [str(s) for s in loaded.outputs] == ["y float32[N,4]"]
    shapes = {v.name: len(v.type.tensor_type.shape.dim) for v in loaded.proto.graph.value_info}
    assert shapes == {"c": 4, "k": 3, "m": 4, "r": 3, "a": 2}


def test_load_leaves_its_input_alone() -> None:
    before = SMALL.proto.SerializeToString(deterministic=True)
    load(SMALL, {"x": (5, 3, 8, 6)})
    assert SMALL.proto.SerializeToString(deterministic=True) == before


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, b"", "mobilenet.onnx")
    with pytest.raises(
        ModelError, match=r"mobilnet.onnx: no such file \(did you mean 'mobilenet.onnx'\?\)"
    ):
        read(tmp_path / "mobilnet.onnx")
    with pytest.raises(ModelError, match=r"m.onnx: no such file; check the path"):
        read(tmp_path / "nowhere" / "m.onnx")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a file; give the \.onnx file itself"):
        read(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path, SMALL.serialized)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match="Permission denied; make the file readable"):
        read(path)


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.pkl", b"weights")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file, not ONNX"),
        (_zip(), r"a zip archive \(a PyTorch checkpoint\?\), not ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a text file .*not ONNX"),
        (b"<html><body>404</body></html>", "a text file .*not ONNX"),
        (b'{"error": "not found"}', "a text file .*not ONNX"),
        (np.random.default_rng(5).bytes(5000), "5000 bytes that are not ONNX"),
    ],
    ids=["empty", "zip", "lfs", "html", "json", "random"],
)
def test_what_is_not_onnx_is_called_by_its_name(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(ModelError, match=f"{reason}.*; export or download the model again"):
        read(written(tmp_path, content))


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, part: float) -> None:
    whole = (MODELS / "dscnn_kws.onnx").read_bytes() if MODELS.is_dir() else SMALL.serialized
    with pytest.raises(ModelError, match="not ONNX, or a truncated ONNX file"):
        load(read(written(tmp_path, whole[: max(3, int(part * len(whole)))])))


def test_a_graph_without_nodes_is_refused(tmp_path: Path) -> None:
    model = relu()
    del model.proto.graph.node[:]
    with pytest.raises(ModelError, match="an ONNX file without nodes"):
        read(written(tmp_path, model.serialized))


# ---- operators and opsets


def test_an_unknown_operator_names_the_nearest() -> None:
    model = relu()
    model.proto.graph.node[0].op_type = "Rellu"
    with pytest.raises(
        ModelError, match=r"unknown operator 'Rellu' \(did you mean 'P?Relu'\?\) at opset 17"
    ):
        load(model)


def test_an_operator_newer_than_the_opset_is_unknown() -> None:
    model = model_from("g (float[N,3] x) => (float[N,3] y) { y = Gelu(x) }")
    with pytest.raises(ModelError, match=r"unknown operator 'Gelu'.* at opset 17"):
        load(model)


@pytest.mark.parametrize(
    ("domain", "op"), [("my.company", "Relu"), ("onnx_deploy", "NoSuchPlugin")]
)
def test_an_unknown_domain_is_refused(domain: str, op: str) -> None:
    model = relu()
    model.proto.graph.node[0].domain = domain
    model.proto.graph.node[0].op_type = op
    model.proto.graph.node[0].name = "odd"
    with pytest.raises(
        ModelError, match=f"node 'odd' is {op} of domain '{domain}', which nothing here"
    ):
        load(model)


def test_an_unknown_domain_inside_a_body_is_refused() -> None:
    proto = onnx.ModelProto.FromString(SMALL.serialized)
    proto.graph.node[-1].attribute[0].g.node[0].domain = "my.company"
    with pytest.raises(ModelError, match=r"is Relu of domain 'my.company'"):
        load(Model(proto, "m"))


def test_microsofts_domain_and_local_functions_are_known() -> None:
    assert load(model_from("g (float[N,3] x) => (float[N,3] y) { y = com.microsoft.Gelu(x) }"))
    text = """
    <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[N,3] x) => (float[N,3] y) { y = local.twice(x) }
    <domain: "local", opset_import: ["" : 17]>
    twice (a) => (b) { b = Add(a, a) }
    """
    assert [str(s) for s in load(Model(onnx.parser.parse_model(text), "m")).outputs] == [
        "y float32[N,3]"
    ]


@pytest.mark.parametrize("opset", [0, -1, 9999])
def test_an_opset_out_of_range_is_refused(opset: int) -> None:
    model = relu()
    model.proto.opset_import[0].version = opset
    with pytest.raises(ModelError, match=rf"opset {opset}; this onnx-deploy knows 1 to \d+"):
        load(model)


def test_no_default_opset_is_refused() -> None:
    model = relu()
    del model.proto.opset_import[0]
    with pytest.raises(ModelError, match="no version of the default operator set"):
        load(model)


def test_a_model_without_standard_operators_needs_no_default_opset() -> None:
    node = onnx.helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=1.0)
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy")
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=3)
    loaded = load(Model(proto, "m"))
    assert {e.domain for e in loaded.proto.opset_import} == {"", "ai.onnx.ml"}
    assert run(loaded, {"x": np.float32([[0, 1, 2], [3, 0, 0]])})["y"].sum() == 2


def test_a_conversion_that_changes_the_inputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop_the_batch(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        changed = copy_proto(proto)
        del changed.graph.input[0].type.tensor_type.shape.dim[0]
        return changed

    monkeypatch.setattr(onnx.version_converter, "convert_version", drop_the_batch)
    with pytest.raises(ModelError, match="converter changes the inputs"):
        load(relu(opset=11))


# ---- the one operator that only opset 8 has: Scan over a batch


def batched_scan(batch: str, scan: str, *, lengths: str = "") -> Model:
    """Two states, two sequences: s' = s + n, t' = max(t, m) - n, and both given out per step."""
    extra = f", int64[{batch}] {lengths}" if lengths else ""
    text = f"""
    <ir_version: 3, opset_import: ["" : 8]>
    g (float[{batch},2] s, float[{batch},2] t, float[{batch},3,2] x, float[{batch},3,2] z{extra})
        => (float[{batch},2] u, float[{batch},2] v, float[{batch},3,2] p, float[{batch},3,2] q) {{
        a = Neg(x)
        u, v, p, q0 = Scan <num_scan_inputs = 2{scan}, body = b (float[2] c, float[2] d, float[2] n,
            float[2] m) => (float[2] e, float[2] f, float[2] g, float[2] h) {{
                e = Add(c, n)  k = Max(d, m)  f = Sub(k, n)  g = Identity(e)  h = Identity(f) }}>
            ({lengths or '""'}, s, t, a, z)
        q = Relu(q0)
    }}
    """
    return Model(onnx.parser.parse_model(text), "m")


@pytest.mark.parametrize("batch", ["1", "4"])
@pytest.mark.parametrize("scan", ["", ", directions = [1, 0]"])
def test_a_scan_over_a_batch_becomes_one_within_another(batch: str, scan: str) -> None:
    old = batched_scan(batch, scan)
    loaded = load(old)
    assert (loaded.opset, ops(loaded)) == (13, ["Neg", "Scan", "Relu"])
    assert [(e.domain, e.version) for e in loaded.proto.opset_import] == [("", 13)]
    assert_same_numbers(old, loaded, rtol=0)


def test_a_scan_with_sequences_of_unequal_length_is_refused() -> None:
    message = r"'u' is a Scan of opset 8 with the lengths of its sequences, 'n'.*opset 13 or above"
    with pytest.raises(ModelError, match=message):
        load(batched_scan("2", "", lengths="n"))


def test_a_scan_whose_body_cannot_be_converted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnx.version_converter.convert_version

    def refuse_the_body(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        if proto.graph.name == "b":
            raise RuntimeError("no adapter")
        return real(proto, version)

    monkeypatch.setattr(onnx.version_converter, "convert_version", refuse_the_body)
    with pytest.raises(ModelError, match=r"opset 8 can't be converted to 13.*no adapter"):
        load(batched_scan("2", ""))


@pytest.mark.parametrize("opset", [9, 13, 17])
def test_the_default_axes_of_mean_variance_normalization_are_written_down(opset: int) -> None:
    """ONNX's strict inference fails on the operator without them."""
    text = "g (float[N,3,4,5] x) => (float[N,3,4,5] y) { y = MeanVarianceNormalization(x) }"
    old = model_from(text, opset=opset)
    del old.proto.opset_import[1:]
    loaded = load(old)
    assert list(loaded.proto.graph.node[0].attribute[0].ints) == [0, 2, 3]
    assert_same_numbers(old, loaded, rtol=0)


def test_axes_that_are_given_stay() -> None:
    norm = "MeanVarianceNormalization<axes=[0,3]>(x)"
    text = f"g (float[N,3,4,5] x) => (float[N,3,4,5] y) {{ y = {norm} }}"
    loaded = load(model_from(text))
    assert list(loaded.proto.graph.node[0].attribute[0].ints) == [0, 3]


def test_a_newer_ir_version_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the ONNX checker refuses it: .*ir_version 99"):
        load(relu(ir=99))


@pytest.mark.parametrize("opset", [7, 11, 12])
def test_an_old_opset_is_converted(opset: int) -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,192] y) {
        c = Conv<pads=[1,1,1,1]>(x, w)  t = Transpose<perm=[0,2,3,1]>(c)
        f = Flatten(t)  y = Softmax<axis=1>(f)
    }
    """
    old = model_from(text, {"w": weight(4, 3, 3, 3)}, opset=opset)
    del old.proto.opset_import[1:]
    loaded = load(old)
    assert loaded.opset == 13
    assert [(d.rule, d.outcome) for d in loaded.decisions] == [("convert_opset", "applied")]
    assert f"opset {opset} -> 13" in loaded.decisions[0].reason
    assert_same_numbers(old, loaded)


@pytest.mark.parametrize("dtype", ["float", "float16", "double"])
@pytest.mark.parametrize(
    "call",
    [
        "Clip<min=-1.0,max=0.5>(x)",
        "Clip<max=0.5>(x)",
        "Pad<pads=[0,1,0,1],value=-1.5>(x)",
        'Pad<pads=[0,1,0,1],mode="reflect",value=1.5>(x)',
    ],
)
def test_bounds_that_become_inputs_have_the_type_of_the_data(call: str, dtype: str) -> None:
    """ONNX's converter writes float32, and keeps the value of a Pad that has no use for one."""
    if "Clip" in call and dtype == "double":
        pytest.skip("ONNX Runtime has no Clip of that type and opset to compare with")
    old = model_from(f"g ({dtype}[N,4] x) => ({dtype}[N,M] y) {{ y = {call} }}", opset=10)
    del old.proto.opset_import[1:]
    loaded = load(old)
    onnx.checker.check_model(loaded.proto, full_check=True)
    assert_same_numbers(old, loaded)


def test_what_the_converter_refuses_is_named() -> None:
    old = model_from('g (float[N,4] x) => (float[N,4] y) { y = Cast<to="FLOAT">(x) }', opset=5)
    with pytest.raises(
        ModelError, match=r"opset 5 can't be converted to 13.*with opset 13 or above"
    ):
        load(old)


def test_whatever_the_converter_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(proto: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raise onnx.version_converter.ConvertError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(
        ModelError, match=r"opset 11 can't be converted to 13.*: no adapter\. Export"
    ):
        load(relu(opset=11))


def test_weights_whose_shapes_contradict_in_an_old_model_are_named() -> None:
    old = model_from(
        "g (float[N,3] x) => (float[N,3] y) { y = Mul(x, w) }", {"w": weight(3)}, opset=11
    )
    wrong = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 7])
    old.proto.graph.value_info.append(wrong)
    with pytest.raises(ModelError, match=r"opset 11 can't be converted to 13.* differ in rank"):
        load(old)


# ---- the graph


def test_a_cycle_is_named() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { a = Add(x, b) b = Relu(a) y = Neg(b) }"
    with pytest.raises(ModelError, match="the graph has a cycle through 'Add -> a'"):
        load(model_from(text))


def test_an_unsorted_graph_gets_sorted() -> None:
    text = "g (float[N,3] x) => (float[N,3] y) { y = Neg(b) b = Abs(a) a = Relu(x) }"
    model = model_from(text)
    loaded = load(model)
    assert ops(loaded) == ["Relu", "Abs", "Neg"]
    assert ops(model) == ["Neg", "Abs", "Relu"]
    assert [(d.rule, d.reason) for d in loaded.decisions] == [
        ("sort", "nodes were not in topological order")
    ]


def test_a_body_that_reads_a_later_value_is_sorted_behind_it() -> None:
    proto = onnx.ModelProto.FromString(SMALL.serialized)
    branch, mean = proto.graph.node[5], proto.graph.node[4]
    nodes = [*proto.graph.node[:4], branch, mean]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
    assert ops(load(Model(proto, "m"))) == ops(SMALL)


def test_a_value_nobody_computes_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the ONNX checker refuses it: .*'lost'"):
        load(model_from("g (float[N,3] x) => (float[N,3] y) { y = Add(x, lost) }"))


def test_shapes_that_do_not_fit_are_named() -> None:
    model = model_from(
        "g (float[N,3] x) => (float[N,5] y) { y = MatMul(x, w) }", {"w": weight(4, 5)}
    )
    with pytest.raises(ModelError, match=r"shapes don't fit together: .*MatMul"):
        load(model)


SEQUENCE_IN = "g (seq(float[N,3]) x) => (float[A,3] y) { y = ConcatFromSequence<axis=0>(x) }"
SEQUENCE_OUT = "g (float[N,3] x) => (seq(float[A,3]) x2) { x2 = SequenceConstruct(x) }"


@pytest.mark.parametrize("text", [SEQUENCE_IN, SEQUENCE_OUT])
def test_sequences_are_loaded_simplified_and_fused_but_no_engine_takes_them(text: str) -> None:
    model = model_from(text)
    fused = fuse(simplify(load(model)), ["cancel_transpose", "recognize_hard_swish"])
    for before, after in (
        (model.proto.graph.input, fused.proto.graph.input),
        (model.proto.graph.output, fused.proto.graph.output),
    ):
        assert [v.SerializeToString() for v in before] == [v.SerializeToString() for v in after]
    with pytest.raises(ModelError, match=r"'x2?' is a sequence_type; only tensors can be deployed"):
        reference.build(fused)


def test_simplify_says_why_a_model_with_sequences_stays() -> None:
    text = "g (seq(float[N,3]) x) => (float[A,B] y) { a = ConcatFromSequence<axis=0>(x) "
    text += "t = Transpose(a) u = Transpose(t) y = Relu(u) }"
    (decision,) = simplify(load(model_from(text))).decisions
    assert decision.outcome == "skipped"
    assert "couldn't be compared: 'x' is a sequence_type" in decision.reason


def test_a_shape_for_a_sequence_is_refused() -> None:
    with pytest.raises(RecipeError, match="--shape names input 'x'"):
        load(model_from(SEQUENCE_IN), {"x": (1, 3)})


@pytest.mark.parametrize("element", [0, 99])
def test_an_unknown_element_type_is_refused(element: int) -> None:
    model = relu()
    model.proto.graph.input[0].type.tensor_type.elem_type = element
    with pytest.raises(ModelError, match=f"'x' has no known element type: {element}"):
        load(model)


# ---- damaged files: whatever the bytes, it loads or it says why not


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SMALL.serialized) - 1), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_bytes_never_escape(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(SMALL.serialized)
    for position, value in changes:
        damaged[position] = value
    try:
        loaded = load(read(written(tmp_path, bytes(damaged))))
    except DeployError as error:
        assert "\n" not in str(error)
    else:
        assert loaded.inputs


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.binary(max_size=200))
def test_random_bytes_never_escape(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DeployError):
        load(read(written(tmp_path, content)))


def test_errors_about_shapes_are_the_recipes() -> None:
    with pytest.raises(RecipeError, match="--shape names input 'z'"):
        load(relu(), {"z": (1, 3)})
