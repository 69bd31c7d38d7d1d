"""External weights: embedded from beside the model, and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from helpers import assert_same_numbers, model_from, weight

from deploy.errors import ModelError
from deploy.load import load, read

SOURCE = model_from(
    "g (float[N,7] x) => (float[N,5] y) { h = MatMul(x, w) y = Add(h, b) }",
    {"w": weight(7, 5), "b": weight(5)},
)


def external(folder: Path, **entries: str) -> Path:
    """SOURCE with `w` in w.bin, behind 12 other bytes; `entries` replace where it says it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.bin").write_bytes(b"elsewhere..." + weight(7, 5).tobytes() + b"more")
    proto = onnx.ModelProto.FromString(SOURCE.serialized)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": "12", "length": "140", **entries}.items():
        if value:
            tensor.external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_it_is_embedded(tmp_path: Path) -> None:
    path = external(tmp_path)
    model = read(path)
    assert model.proto.graph.initializer[0].raw_data == weight(7, 5).tobytes()
    assert not onnx.external_data_helper.uses_external_data(model.proto.graph.initializer[0])
    (tmp_path / "w.bin").unlink()
    assert_same_numbers(SOURCE, load(model))


def test_without_a_length_the_rest_of_the_file_is_read(tmp_path: Path) -> None:
    path = external(tmp_path, length="")
    (tmp_path / "w.bin").write_bytes(b"elsewhere..." + weight(7, 5).tobytes())
    assert_same_numbers(SOURCE, load(read(path)))


def test_a_folder_below_the_model_is_fine(tmp_path: Path) -> None:
    path = external(tmp_path, location="data/w.bin")
    (tmp_path / "data").mkdir()
    (tmp_path / "w.bin").rename(tmp_path / "data" / "w.bin")
    assert_same_numbers(SOURCE, load(read(path)))


def test_a_link_that_stays_inside_is_fine(tmp_path: Path) -> None:
    path = external(tmp_path, location="link.bin")
    (tmp_path / "link.bin").symlink_to("w.bin")
    assert_same_numbers(SOURCE, load(read(path)))


def test_tensors_inside_constant_nodes_are_embedded(tmp_path: Path) -> None:
    path = external(tmp_path)
    proto = onnx.load_model_from_string(path.read_bytes())
    node = onnx.helper.make_node("Constant", [], ["w"], value=proto.graph.initializer[0])
    proto.graph.node.insert(0, node)
    del proto.graph.initializer[0]
    path.write_bytes(proto.SerializeToString())
    assert_same_numbers(SOURCE, load(read(path)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r"weight 'w' needs 'w.bin', which is not in .*; copy"):
        read(path)


@pytest.mark.parametrize("location", ["../w.bin", "data/../../w.bin"])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(b"elsewhere..." + weight(7, 5).tobytes())
    path = external(tmp_path / "model", location=location)
    with pytest.raises(ModelError, match=r"weight 'w' points to .*, outside the model's folder"):
        read(path)


def test_an_absolute_path_is_refused_even_into_the_folder(tmp_path: Path) -> None:
    path = external(tmp_path, location=str(tmp_path / "w.bin"))
    with pytest.raises(ModelError, match="outside the model's folder"):
        read(path)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "model", location="link.bin")
    (tmp_path / "w.bin").write_bytes(b"elsewhere..." + weight(7, 5).tobytes())
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match=r"'link.bin', outside the model's folder"):
        read(path)


def test_a_linked_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path / "model", location="data/w.bin")
    (tmp_path / "w.bin").write_bytes(b"")
    (tmp_path / "model" / "data").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ModelError, match=r"'data/w.bin', outside the model's folder"):
        read(path)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    path = external(tmp_path, location="a")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ModelError, match=r"weight 'w' (points to|needs) 'a'"):
        read(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"elsewhere..." + weight(7, 5).tobytes()[:-1])
    with pytest.raises(
        ModelError, match=r"'w' needs bytes 12 to 152 of w.bin, which has 151; copy"
    ):
        read(path)


def test_a_length_that_is_not_the_shapes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weight 'w' doesn't fill its shape \[7, 5\]"):
        load(read(external(tmp_path, length="136")))


@pytest.mark.parametrize("entry", ["-4", "twelve", "1.5"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_a_damaged_place_is_refused(tmp_path: Path, key: str, entry: str) -> None:
    with pytest.raises(ModelError, match="weight 'w' has a damaged place in its external data"):
        read(external(tmp_path, **{key: entry}))


def test_a_location_with_a_nul_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"weight 'w' points to 'w.bin.x00', which is no place"):
        read(external(tmp_path, location="w.bin\0"))


def test_no_location_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weight 'w' needs '', which is not in"):
        read(external(tmp_path, location=""))
