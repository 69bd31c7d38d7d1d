"""Our checker on the configurations that break a Triton server, and on those that don't."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest
from broken_configs import BROKEN, Broken

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import check_package, package_bundle
from deploy.packaging.triton_check import problems_of_repository


@pytest.fixture(scope="session")
def batched(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits repository with batching: the one with the most in its configuration."""
    output = tmp_path_factory.mktemp("batched") / "repository"
    package_bundle(digits, "triton", output, None, PackageOptions(max_batch=8))
    return output


@pytest.fixture
def repository(batched: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    copied = tmp_path / "repository"
    shutil.copytree(batched, copied)
    return copied


def changed(repository: Path, change: object) -> list[str]:
    path = repository / "digits" / "config.pbtxt"
    assert callable(change)
    path.write_text(change(path.read_text()))
    return problems_of_repository(repository)


def test_there_are_22_of_them() -> None:
    assert len({broken.name for broken in BROKEN}) == len(BROKEN) == 22


def test_what_we_write_is_accepted(batched: Path) -> None:
    assert check_package(batched) == ("triton", [])


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_each_is_refused_with_its_reason(broken: Broken, repository: Path) -> None:
    problems = changed(repository, broken.change)
    assert any(broken.refused in problem for problem in problems), problems
    assert all(problem.startswith("digits: ") for problem in problems)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dynamic_batching {", "dynamic_batching { preferred_batch_size: [2, 8]"),
        ("dynamic_batching {", "dynamic_batching { max_queue_delay_microseconds: 100"),
        ("count: 1", "count: 64"),
        ("versions: 1", "versions: [1]"),
        ('string_value: "LATENCY"', 'string_value: "throughput"'),
        ("KIND_CPU", "KIND_AUTO"),
    ],
)
def test_what_a_server_takes_is_accepted(old: str, new: str, repository: Path) -> None:
    assert changed(repository, lambda config: config.replace(old, new, 1)) == []


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (
            lambda c: c.replace('key: "ENABLE_BATCH_PADDING"', 'key: "ENABLE_PADDING"'),
            "parameter 'ENABLE_PADDING'",
        ),
        (lambda c: c.replace('string_value: "YES"', 'string_value: "NO"'), "without ENABLE_BATCH"),
        (lambda c: c.replace('"LATENCY"', '"FAST"'), "PERFORMANCE_HINT = 'FAST'"),
        (lambda c: f'{c}\ndefault_model_filename: "../model.xml"', "not a plain file name"),
        (lambda c: c.replace('backend: "openvino"', 'backend: "python"'), "backend 'python'"),
        (lambda c: c.replace('backend: "openvino"', 'backend: "tensorrt"'), "has no model.plan"),
        (lambda c: c.replace("TYPE_FP32", "TYPE_FP16"), "TYPE_FP16, the model has TYPE_FP32"),
        (lambda c: c.replace("TYPE_FP32", "TYPE_BF16"), "backend doesn't take"),
        (lambda c: c.replace("zero_data: true", ""), "no data; give zero_data"),
        (lambda c: c.replace("count: 1", "count: 65"), "count 65; at most 64 on a device"),
        (
            lambda c: (
                c[: c.index("dynamic_batching")]
                + 'ensemble_scheduling { step { model_name: "digits" } }\n'
            ),
            "ensemble_scheduling: an ensemble runs other models",
        ),
        (
            lambda c: c.replace("zero_data: true", 'input_data_file: "../../secret"'),
            "leads out of the model's warmup folder",
        ),
        (lambda c: c.replace("specific {\n    versions: 1\n  }", "latest { }"), "num_versions 0"),
        (lambda c: c.replace("  dims: 10\n", "  dims: 5\n  dims: 2\n"), "shape [8, 5, 2]"),
        (lambda c: f'{c}\noutput {{ name: "logits" data_type: TYPE_FP32 dims: 10 }}', "twice"),
        (
            lambda c: f'{c}\ninput {{ name: "mask" data_type: TYPE_FP32 dims: 4 }}',
            "model_warmup 'one sample': input 'mask' is missing",
        ),
    ],
)
def test_what_else_a_server_would_refuse(change: object, refused: str, repository: Path) -> None:
    problems = changed(repository, change)
    assert any(refused in problem for problem in problems), problems


def test_a_layout_that_makes_triton_choose_a_batch(digits: Path, tmp_path: Path) -> None:
    import openvino as ov

    package_bundle(digits, "triton", tmp_path / "r", None, PackageOptions())
    folder = tmp_path / "r" / "digits" / "1"
    model = ov.Core().read_model(folder / "model.xml")
    for parameter in model.get_parameters():
        parameter.set_layout(ov.Layout("NCHW"))
    ov.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    for part in ("model.xml", "model.bin"):
        shutil.copyfile(tmp_path / part, folder / part)
    problems = problems_of_repository(tmp_path / "r")
    assert ["its layout has a batch" in problem for problem in problems] == [True]


def test_a_damaged_model_is_said(repository: Path) -> None:
    (repository / "digits" / "1" / "model.xml").write_text("<net>")
    assert "OpenVINO can't read it" in problems_of_repository(repository)[0]


def test_a_model_that_can_not_be_batched_is_said(stuck: Path, tmp_path: Path) -> None:
    package_bundle(stuck, "triton", tmp_path / "r", "m", PackageOptions())
    path = tmp_path / "r" / "m" / "config.pbtxt"
    text = path.read_text().replace("  dims: 1\n", "").replace("    dims: 1\n", "")
    padding = 'parameters { key: "ENABLE_BATCH_PADDING" value { string_value: "YES" } }'
    path.write_text(f"max_batch_size: 4\n{padding}\n{text}")
    problems = problems_of_repository(tmp_path / "r")
    assert any("max_batch_size 4" in problem or "shape [4, 8]" in problem for problem in problems)


def test_no_change_of_a_configuration_raises(repository: Path) -> None:
    """Lines lost, doubled, moved and renumbered: always an answer, mostly complaints."""
    path = repository / "digits" / "config.pbtxt"
    lines = path.read_text().splitlines()
    rng = random.Random(3)
    refused = 0
    for _ in range(150):
        mutated = list(lines)
        for _ in range(rng.randint(1, 3)):
            index = rng.randrange(len(mutated))
            mutated[index] = rng.choice(
                (
                    *("", mutated[rng.randrange(len(mutated))], f"{mutated[index]} {{ }}"),
                    re.sub(r"-?\d+", str(rng.choice((-3, 0, 7, 2**31, 2**63))), mutated[index]),
                )
            )
        path.write_text("\n".join(mutated))
        refused += bool(problems_of_repository(repository))
    assert refused > 100


def test_links_are_not_followed(repository: Path) -> None:
    model = repository / "digits" / "1" / "model.bin"
    moved = repository.parent / "elsewhere.bin"
    shutil.move(model, moved)
    model.symlink_to(moved)
    assert problems_of_repository(repository) == [f"{model}: a link; copy what it points to"]


def test_a_folder_without_models(tmp_path: Path) -> None:
    assert problems_of_repository(tmp_path) == [f"{tmp_path}: no model in it"]
    (tmp_path / "empty").mkdir()
    assert problems_of_repository(tmp_path) == ["empty: no config.pbtxt"]


def test_a_huge_configuration_is_not_parsed(repository: Path) -> None:
    (repository / "digits" / "config.pbtxt").write_text("#" * (2**20 + 1))
    assert "no configuration is that large" in problems_of_repository(repository)[0]
