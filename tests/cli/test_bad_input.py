"""Bad input ends in one readable line, the right exit code, and no bundle."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

DATA = ("--int8", "--data", "calib.npz", "--samples", "8", "--eval-samples", "8")
Deploy = Callable[..., Any]


def refused(deploy: Deploy, *arguments: object, code: int = 1) -> str:
    """The one error line of a command that must fail with that code and leave no bundle."""
    ran = deploy(*arguments)
    assert ran.code == code, ran.err
    assert len(ran.errors) == 1, ran.err
    assert ran.err.splitlines()[-1] == ran.errors[0], "something came after the error"
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    assert len(ran.errors[0]) < 700, "a line nobody reads"
    assert list(Path().rglob("manifest.json")) == []
    return str(ran.errors[0])


def conv(weight: np.ndarray, shape: tuple[object, ...] = ("N", 3, 6, 5)) -> onnx.ModelProto:
    """x -> Conv -> Relu -> y with 4 output channels; asymmetric on purpose."""
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 4, "h", 5))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def weight() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((4, 3, 2, 1)).astype(np.float32)


def saved(proto: onnx.ModelProto, name: str = "net.onnx") -> str:
    Path(name).write_bytes(proto.SerializeToString())
    return name


def digits_with(**arrays: np.ndarray) -> str:
    """A .npz of eight ready samples, with those arrays instead."""
    x = np.random.default_rng(5).random((8, 1, 8, 8)).astype(np.float32)
    stored = {"image": x, "labels": np.arange(8)} | arrays
    np.savez("own.npz", **stored)  # type: ignore[arg-type]
    return "own.npz"


# --- the model ---------------------------------------------------------------------------------


def truncated() -> str:
    content = Path("digits.onnx").read_bytes()
    Path("net.onnx").write_bytes(content[: len(content) // 2])
    return "net.onnx"


def written(content: bytes) -> Callable[[], str]:
    def make() -> str:
        Path("net.onnx").write_bytes(content)
        return "net.onnx"

    return make


def missing_neighbour() -> str:
    return "digit.onnx"


def a_folder() -> str:
    Path("net.onnx").mkdir()
    return "net.onnx"


def opset(version: int) -> Callable[[], str]:
    def make() -> str:
        proto = conv(weight())
        proto.opset_import[0].version = version
        return saved(proto)

    return make


def unknown_op() -> str:
    proto = conv(weight())
    proto.graph.node[1].op_type = "Rleu"
    return saved(proto)


def unknown_domain() -> str:
    proto = conv(weight())
    proto.graph.node[1].domain = "acme.ops"
    proto.opset_import.append(helper.make_opsetid("acme.ops", 1))
    return saved(proto)


def external(location: str, length: int = 96) -> Callable[[], str]:
    def make() -> str:
        proto = conv(weight())
        tensor = proto.graph.initializer[0]
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        folder = Path("model")
        folder.mkdir()
        Path("secret.bin").write_bytes(raw)
        (folder / "short.bin").write_bytes(raw[:50])
        (folder / "link.bin").symlink_to(Path("secret.bin").resolve())
        return saved(proto, "model/net.onnx")

    return make


def zero_size() -> str:
    return saved(conv(np.zeros((0, 3, 2, 1), np.float32)))


def bad_weight(value: float) -> Callable[[], str]:
    def make() -> str:
        w = weight()
        w[1, 2, 0, 0] = value
        return saved(conv(w))

    return make


def short_weight() -> str:
    proto = conv(weight())
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:40]
    return saved(proto)


def dynamic() -> str:
    return saved(conv(weight(), ("N", 3, "height", 5)))


def cyclic() -> str:
    proto = conv(weight())
    proto.graph.node[0].input[0] = "y"
    return saved(proto)


def unread_value() -> str:
    proto = conv(weight())
    proto.graph.node[1].input[0] = "nowhere"
    return saved(proto)


def wrong_shapes() -> str:
    proto = conv(weight())
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    return saved(proto)


MODELS: dict[str, tuple[Callable[[], str], str]] = {
    "not there": (missing_neighbour, r"digit\.onnx: no such file \(did you mean 'digits\.onnx'\?"),
    "a folder": (a_folder, r"net\.onnx: not a file; give the \.onnx file itself"),
    "empty": (written(b""), r"net\.onnx: an empty file, not ONNX; export"),
    "text": (written(b"<html>404</html>"), r"net\.onnx: a text file .*, not ONNX"),
    "zip": (written(b"PK\x03\x04" + bytes(60)), r"a zip archive .*, not ONNX"),
    "noise": (written(bytes(range(256)) * 4), r"1024 bytes that are not ONNX"),
    "truncated": (truncated, r"net\.onnx: \d{6} bytes that are not ONNX, or a truncated ONNX file"),
    "opset too new": (opset(999), r"opset 999; this onnx-deploy knows 1 to \d\d"),
    "opset zero": (opset(0), r"opset 0; this onnx-deploy knows 1 to"),
    "unknown op": (unknown_op, r"unknown operator 'Rleu' \(did you mean 'Relu'\?\) at opset 17"),
    "unknown domain": (unknown_domain, r"'relu' is Relu of domain 'acme\.ops', which nothing here"),
    "external missing": (external("w.bin"), r"weight 'w' needs 'w\.bin', which is not in model"),
    "external outside": (external("../secret.bin"), r"'w' points to '\.\./secret\.bin', outside"),
    "external absolute": (external("/etc/passwd"), r"points to '/etc/passwd', outside the model's"),
    "external link": (external("link.bin"), r"points to 'link\.bin', outside the model's folder"),
    "external short": (external("short.bin"), r"needs bytes 0 to 96 of short\.bin, which has 50"),
    "weight of no size": (zero_size, r"weight 'w' of a Conv has shape \[0, 3, 2, 1\], no elements"),
    "weight is NaN": (bad_weight(np.nan), r"weight 'w' holds 1 NaN or Inf values"),
    "weight is Inf": (bad_weight(np.inf), r"weight 'w' holds 1 NaN or Inf values"),
    "weight cut off": (short_weight, r"weight 'w' doesn't fill its shape \[4, 3, 2, 1\]"),
    "dynamic": (dynamic, r"x float32\[N,3,height,5\] has .* --shape x=1,3,\?,5"),
    "cyclic": (cyclic, r"cycle through 'conv'; a node's input depends on its own output"),
    "dangling": (unread_value, r"'?nowhere'?"),
    "shapes": (wrong_shapes, r"net: shapes don't fit together: .*\b4\b.*7"),
}


@pytest.mark.parametrize(("make", "message"), MODELS.values(), ids=MODELS)
def test_models(here: Path, deploy: Deploy, make: Callable[[], str], message: str) -> None:
    line = refused(deploy, "build", make(), "--fp32", "-o", "out")
    assert re.search(message, line), line
    assert "; " in line or ". " in line, f"says nothing of what to do: {line}"


# --- the data ----------------------------------------------------------------------------------


def filled(value: float) -> Callable[[], str]:
    def make() -> str:
        x = np.zeros((8, 1, 8, 8), np.float32)
        x[3, 0, 4, 5] = value
        return digits_with(image=x)

    return make


def renamed() -> str:
    np.savez("own.npz", images=np.zeros((8, 1, 8, 8), np.float32))
    return "own.npz"


def stored(**arrays: np.ndarray) -> Callable[[], str]:
    return lambda: digits_with(**arrays)


def cut_npz() -> str:
    content = Path("calib.npz").read_bytes()
    Path("own.npz").write_bytes(content[:-200])
    return "own.npz"


def empty_folder() -> str:
    Path("own").mkdir()
    return "own"


def images(labels: str | None = None, broken: bool = False) -> Callable[[], str]:
    def make() -> str:
        Path("own").mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 255, (9, 7), np.uint8)
            Image.fromarray(pixels).save(f"own/{i}.png")
        if broken:
            content = Path("own/1.png").read_bytes()
            Path("own/1.png").write_bytes(content[: len(content) // 2])
        if labels is not None:
            Path("own/labels.csv").write_text(labels)
        return "own"

    return make


def python_function(body: str, name: str) -> Callable[[], str]:
    def make() -> str:
        Path(f"{name}.py").write_text(f"import numpy as np\ndef samples():\n    {body}\n")
        return f"python:{name}:samples"

    return make


X = np.zeros((8, 1, 8, 8), np.float32)
GRAY = ("--color", "GRAY")
SAMPLES: dict[str, tuple[Callable[[], str], str]] = {
    "not there": (lambda: "calib.npy", r"calib\.npy: no such file .*\(did you mean 'calib\.npz'"),
    "not a dataset": (lambda: "digits.onnx", r"digits\.onnx: not a dataset; give a folder of im"),
    "empty folder": (empty_folder, r"0 images in own; put in files named|own: an empty folder"),
    "cut off": (cut_npz, r"unreadable own\.npz|unreadable .*truncated"),
    "missing input": (renamed, r"none is 'image'; nearest is 'images': pass --data-key image=im"),
    "wrong shape": (
        stored(image=X[..., :7]),
        r"shape \[1, 8, 7\] at .*'image' takes \[\?, 1, 8, 8",
    ),
    "wrong rank": (stored(image=X[:, 0, 0]), r"shape \[8\] at .*'image' takes \[\?, 1, 8, 8\]"),
    "wrong dtype": (stored(image=X.astype(np.int64)), r"int64 values .*'image' takes float32"),
    "complex": (stored(image=X.astype(np.complex64)), r"complex64 values at key 'image'"),
    "NaN": (filled(np.nan), r"nan at key 'image' of own\.npz\[3\], element \[0, 0, 4, 5\]"),
    "Inf": (filled(np.inf), r"inf at key 'image' of own\.npz\[3\], element \[0, 0, 4, 5\]"),
    "labels are floats": (
        stored(labels=np.arange(8) / 2),
        r"float64 of shape \[8\] for the labels",
    ),
    "one-hot labels": (
        stored(labels=np.eye(8, dtype=int)),
        r"int64 of shape \[8, 8\] for the labe",
    ),
    "counts differ": (stored(labels=np.arange(7)), r"different sample counts in own\.npz: image 8"),
    "no samples": (stored(image=X[:0], labels=np.arange(0)), r"0 samples in own\.npz"),
    "negative label": (
        stored(labels=np.arange(8) - 1),
        r"label .*-1.* at key 'labels' of own\.npz",
    ),
    "label too high": (stored(labels=np.arange(8) + 3), r"label 10\b.*10 classes"),
    "unreadable image": (images(broken=True), r"unreadable image own/1\.png \(.*\); replace it"),
    "no label column": (images("file,lable\n0.png,1\n"), r"columns file, lable in .*; label missi"),
    "label is a word": (
        images("file,label\n0.png,one\n"),
        r"label 'one' at own/labels\.csv line 2",
    ),
    "label is 1.5": (images("file,label\n0.png,1.5\n"), r"label '1\.5' at .*an integer >= 0"),
    "label is 77": (images("file,label\n0.png,77\n1.png,1\n"), r"label 77\b.*10 classes"),
    "file not there": (
        images("file,label\n9.png,1\n"),
        r"'9\.png' at own/labels\.csv line 2 is no",
    ),
    "no rows": (images("file,label\n"), r"0 images in own/labels\.csv"),
    "python form": (lambda: "python:os", r"'python:os' has another form than python:module:func"),
    "python module": (lambda: "python:no_such_mod:f", r"No module named 'no_such_mod'"),
    "python raises": (
        python_function("raise RuntimeError('no\\ndisk')", "bad_raises"),
        r"RuntimeError: no disk, in bad_raises:samples; mend the function",
    ),
    "python stops": (
        python_function("yield {'image': np.zeros((1, 8, 8), 'f4')}; 1 / 0", "bad_later"),
        r"ZeroDivisionError: division by zero, in bad_later:samples",
    ),
    "python yields": (
        python_function("yield np.zeros((1, 8, 8), 'f4')", "bad_yields"),
        r"ndarray from bad_yields:samples, item 0; expected a dict",
    ),
}


@pytest.mark.parametrize(("make", "message"), SAMPLES.values(), ids=SAMPLES)
def test_samples(here: Path, deploy: Deploy, make: Callable[[], str], message: str) -> None:
    uri = make()
    gray = GRAY if uri == "own" else ()
    line = refused(deploy, "build", "digits.onnx", "--int8", "--data", uri, *gray, "-o", "out")
    assert re.search(message, line), line


# --- flags, recipes, targets -------------------------------------------------------------------

FLAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "int8 without data": (("--int8",), r"--int8 without --data: ranges come from real samples"),
    "default int8 without data": ((), r"int8, the default of 'cpu', without --data.*--fp32"),
    "two precisions": (("--int8", "--fp32"), r"--fp32 and --int8 exclude each other"),
    "precision twice": (("--int8", "--precision", "fp16"), r"--fp16 and --int8 exclude each other"),
    "precision of the target": (("--int8", "--target", "arm-cpu"), r"int8 .*'arm-cpu'.*fp32, fp16"),
    "unknown target": (("--target", "intel-vnn"), r"unknown target 'intel-vnn' .*'intel-vnni'"),
    "no target file": (("--target", "mine.toml"), r"mine\.toml: no such target file"),
    "unknown calibrator": ((*DATA, "--calibrator", "entrpy"), r"'entrpy' \(did you mean 'entropy'"),
    "unknown flag": (("--calibratr", "x"), r"'--calibratr'. Did you mean '--calibrator'"),
    "unknown choice": (("--layout", "NCWH"), r"'NCWH' is not one of 'NCHW', 'NHWC'"),
    "no number": (("--samples", "ten"), r"'--samples': 'ten' is not a valid integer"),
    "no samples": (("--samples", "0"), r"'--samples': 0 is not in the range x>=1"),
    "NaN": (("--fp32", "--min-sqnr-db", "nan"), r"min_sqnr_db = nan: should be a finite number"),
    "drop over 100": (("--fp32", "--max-drop", "101"), r"max_drop = 101\.0: .* or equal to 100"),
    "batch": (("--fp32", "--batch", "0"), r"'0' is neither a size from 1 up nor 'dynamic'"),
    "shape form": (("--fp32", "--shape", "1,1,8,8"), r"'1,1,8,8' is not of the form name=1,3,224"),
    "shape name": (("--fp32", "--shape", "imag=1,1,8,8"), r"'imag' \(did you mean 'image'\?\)"),
    "shape rank": (("--fp32", "--shape", "image=1,8,8"), r"has 3 dimensions; the input is image"),
    "shape size": (("--fp32", "--shape", "image=1,1,9,8"), r"dimension 2 is 9; the model fixes it"),
    "shape zero": (("--fp32", "--shape", "image=0,1,8,8"), r"dimension 0 is 0; sizes start at 1"),
    "data key": ((*DATA, "--data-key", "imag=x"), r"'imag' \(did you mean 'image'\?\)"),
    "std": ((*DATA, "--std", "0"), r"0\.0 for std has a 0"),
    "resize": ((*DATA, "--resize", "8by8"), r"'8by8' is not a list of whole numbers"),
    "no recipe": (("--recipe", "r.toml"), r"r\.toml: No such file or directory; give an existing"),
}


@pytest.mark.parametrize(("flags", "message"), FLAGS.values(), ids=FLAGS)
def test_flags(here: Path, deploy: Deploy, flags: tuple[str, ...], message: str) -> None:
    line = refused(deploy, "build", "digits.onnx", *flags, "-o", "out", code=2)
    assert re.search(message, line), line
    assert not Path("out.work").exists() or "--fp32" in flags or "--data" in flags


RECIPES = {
    "syntax": ("samples = \n", r"r\.toml: not valid TOML: .*line 1"),
    "not text": (b"\xff\xfe", r"r\.toml: not valid TOML"),
    "unknown key": ("sampels = 4\n", r"unknown key 'sampels' \(did you mean 'samples'\?\)"),
    "wrong type": ("samples = 'ten'\n", r"samples = 'ten': should be a valid integer"),
    "precision": ("precision = 'int4'\n", r"precision = 'int4': should be 'fp32', 'fp16', 'bf16'"),
    "shape": ("[shape]\nimage = [1, 'a', 8, 8]\n", r"shape.*'a'"),
    "shape is a number": ("[shape]\nimage = 5\n", r"shape.* = 5"),
    "target": ("target = 'cpuu'\n", r"unknown target 'cpuu' \(did you mean 'cpu'\?\)"),
}


@pytest.mark.parametrize(("text", "message"), RECIPES.values(), ids=RECIPES)
def test_recipes(here: Path, deploy: Deploy, text: str | bytes, message: str) -> None:
    Path("r.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    line = refused(deploy, "build", "digits.onnx", "--recipe", "r.toml", "-o", "out", code=2)
    assert re.search(message, line), line


def test_own_target_with_an_unknown_key(here: Path, deploy: Deploy) -> None:
    Path("mine.toml").write_text('extends = "cpu"\n[engine]\nthread = 2\n')
    line = refused(deploy, "build", "digits.onnx", *DATA, "--target", "mine.toml", code=2)
    assert "unknown key 'engine.thread' (did you mean 'threads'?)" in line


def test_max_drop_needs_class_scores(here: Path, deploy: Deploy) -> None:
    line = refused(
        deploy, "build", saved(conv(weight())), "--fp32", "--max-drop", "1", "-o", "out", code=2
    )
    assert re.search(r"--max-drop needs class scores.*y float32.*--min-sqnr-db", line), line


def test_int8_of_integers_only_says_so(here: Path, deploy: Deploy) -> None:
    node = helper.make_node("Add", ["a", "a"], ["b"])
    values = [helper.make_tensor_value_info(n, TensorProto.INT32, ["N", 3]) for n in "ab"]
    proto = helper.make_model(
        helper.make_graph([node], "net", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    np.savez("own.npz", a=np.ones((4, 3), np.int32))
    line = refused(deploy, "build", saved(proto), "--int8", "--data", "own.npz", "-o", "out")
    assert "no float tensor to calibrate; use --fp32" in line


def test_empty_folder_is_named_before_anything_else(here: Path, deploy: Deploy) -> None:
    words = ("build", "digits.onnx", "--int8", "--data", empty_folder(), "-o", "out")
    assert "0 images in own; put in files" in refused(deploy, *words)


# --- the output --------------------------------------------------------------------------------


def test_output_is_a_file(here: Path, deploy: Deploy) -> None:
    Path("out").write_text("mine")
    line = refused(deploy, "build", "digits.onnx", "--fp32", "-o", "out", code=2)
    assert "out: exists and is not a folder; give another -o" in line
    assert Path("out").read_text() == "mine"


def test_output_under_a_file(here: Path, deploy: Deploy) -> None:
    Path("plain").write_text("mine")
    line = refused(deploy, "build", "digits.onnx", "--fp32", "-o", "plain/out", code=2)
    assert "plain/out.work: Not a directory; give another -o" in line
    assert Path("plain").read_text() == "mine"


def test_output_holds_something_else(here: Path, deploy: Deploy) -> None:
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    line = refused(deploy, "build", "digits.onnx", "--fp32", "-o", "out", code=2)
    assert "out: holds 'thesis.txt' and no manifest" in line
    assert [p.name for p in Path("out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", [".", "", "..", "/"])
def test_output_has_to_be_a_folder_of_its_own(here: Path, deploy: Deploy, name: str) -> None:
    line = refused(deploy, "build", "digits.onnx", "--fp32", "-o", name, code=2)
    assert "a bundle takes the place of its folder; give -o the name of a new one" in line


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A good fp32 bundle of the digits model."""
    from deploy.cli import run

    out = tmp_path_factory.mktemp("good") / "out"
    assert run(["build", str(digits / "digits.onnx"), "--fp32", "-o", str(out)]) == 0
    return out


def test_output_of_another_model(here: Path, deploy: Deploy, bundle: Path) -> None:
    shutil.copytree(bundle, "out")
    before = tree(Path("out"))
    ran = deploy("build", saved(conv(weight())), "--fp32", "-o", "out")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "out: holds the bundle of another model (digits, sha256 " in ran.err
    assert "; give another -o or remove the folder" in ran.err
    assert tree(Path("out")) == before
    assert not Path("out.work").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"schema_version": 1}', '{"schema_version": 9}'])
def test_output_with_a_damaged_manifest(here: Path, deploy: Deploy, content: str) -> None:
    Path("out").mkdir()
    Path("out/manifest.json").write_text(content)
    ran = deploy("build", "digits.onnx", "--fp32", "-o", "out")
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "it won't be overwritten, give another -o" in ran.err
    assert Path("out/manifest.json").read_text() == content


@pytest.mark.parametrize("stage", ["load", "calibrate", "parity", "report"])
def test_disk_full(here: Path, deploy: Deploy, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """The disk fills when that stage writes; then there's room, and the build goes on."""
    real = os.fsync

    def full(descriptor: int) -> None:
        file = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if f"{stage}-" in file or f"{stage}." in file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr("deploy.files.os.fsync", full)
    line = refused(deploy, "build", "digits.onnx", *DATA, "-o", "out")
    assert re.search(rf"out\S*{stage}\S*: No space left on device; free some space", line), line
    assert not Path("out").exists()
    assert list(Path().rglob("*.partial")) == [], "what was half written takes the space away"
    monkeypatch.undo()
    monkeypatch.chdir(here)
    ran = deploy("build", "digits.onnx", *DATA, "-o", "out")
    assert ran.code == 0
    assert ran.stages["load"] == (stage != "load"), "finished stages are kept"


@pytest.fixture
def small_disk(here: Path) -> Iterator[Callable[[int], Path]]:
    """A real file system of so many KiB; needs root."""
    mounted = []

    def mount(size_kib: int) -> Path:
        place = here / f"disk{size_kib}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(place)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("can't mount a small file system here")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size_kib", [64, 1100, 1600, 1900, 2300, 2500])
def test_disk_really_full(deploy: Deploy, small_disk: Callable[[int], Path], size_kib: int) -> None:
    out = small_disk(size_kib) / "out"
    line = refused(deploy, "build", "digits.onnx", *DATA, "-o", out)
    assert re.search(r"No space left|free some space", line), line
    assert not out.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_unwritable_output(
    here: Path, deploy: Deploy, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = Path.mkdir

    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name == "out.work":
            raise OSError(number, os.strerror(number), str(self))
        real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    line = refused(deploy, "build", "digits.onnx", "--fp32", "-o", "out", code=2)
    assert f"out.work: {os.strerror(number)}; give another -o" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(here: Path, deploy: Deploy) -> None:
    Path("locked").mkdir(mode=0o500)
    line = refused(deploy, "build", "digits.onnx", "--fp32", "-o", "locked/out", code=2)
    assert "locked/out.work: Permission denied; give another -o" in line


# --- what -v adds ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_shows_the_traceback(here: Path, deploy: Deploy, place: str) -> None:
    words = ["build", "none.onnx", "--fp32"]
    ran = deploy(*(["-v", *words] if place == "before" else [*words, "-v"]))
    assert ran.code == 1
    assert "Traceback" in ran.err
    assert len(ran.errors) == 1
    assert ran.err.splitlines()[-1] == ran.errors[0]


def test_verbose_shows_where_the_users_function_failed(here: Path, deploy: Deploy) -> None:
    uri = python_function("raise RuntimeError('no disk')", "bad_verbose")()
    ran = deploy("build", "digits.onnx", "--int8", "--data", uri, "-v")
    assert ran.code == 1
    assert "bad_verbose.py" in ran.err
    assert ran.err.splitlines()[-1].startswith("error: RuntimeError: no disk, in bad_verbose")


def test_a_defect_of_ours_is_one_line_too(
    here: Path, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("never\nmind")

    monkeypatch.setattr("deploy.pipeline.simplify", broken)
    ran = deploy("build", "digits.onnx", "--fp32", "-o", "out")
    assert (ran.code, len(ran.errors)) == (1, 1)
    assert ran.errors[0] == (
        "error: internal error: ZeroDivisionError: never mind; report it (-v shows where)"
    )
    assert "Traceback" not in ran.err
    assert not Path("out").exists()
