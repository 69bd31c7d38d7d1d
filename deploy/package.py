"""The bundle folder: assembled aside, complete with its manifest, then renamed into place."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.artifacts.audit import Audit
from deploy.artifacts.bundle import MANIFEST, Bundle, write_manifest
from deploy.artifacts.ladder import Ladder
from deploy.artifacts.model import Model
from deploy.artifacts.parity import ParityReport
from deploy.artifacts.precision import PrecisionChoice
from deploy.artifacts.ranges import Ranges
from deploy.bench import Latency
from deploy.data import Data
from deploy.errors import BundleError, RecipeError
from deploy.files import folder_aside, json_bytes, sha256_of, write_aside
from deploy.nvidia.device import DeviceBuild
from deploy.recipe import Recipe
from deploy.target import Precision, Target, Tolerance


@dataclass(frozen=True)
class Findings:
    """Everything one build produced; folders are finished stages in the work folder.

    label: what the engine is called beside others: its precision, and that of its weights.
    judged_as: the target with which `engine` was built and judged; another one than `target` where
    the device isn't this machine, and `device` then holds what is sent to it. cautions: what the
    build warned of, in its order.
    """

    job_command: list[str]
    recipe: Recipe
    target: Target
    judged_as: Target
    device: DeviceBuild | None
    precision: Precision
    label: str
    data: Data
    graphs: dict[str, Model]
    ranges: Ranges | None
    choice: PrecisionChoice | None
    audit: Audit | None
    engine: Path
    evidence: Path
    parity: ParityReport
    ladder: Ladder | None
    tolerance: Tolerance
    latency: dict[str, Latency]
    tools: dict[str, str]
    cautions: tuple[str, ...] = ()


def check_output(output: Path, source: Model) -> None:
    """RecipeError unless `output` is free, or holds an earlier bundle of the same model."""
    if output.name in ("", ".."):
        raise RecipeError(
            f"{str(output)!r}: a bundle takes the place of its folder; give -o the name of a "
            "new one"
        )
    _check_replaceable(output, source)
    _check_replaceable(failed_folder(output), source)


def failed_folder(output: Path) -> Path:
    """Where a bundle goes whose engine missed a gate."""
    return output.with_name(f"{output.name}.failed")


def _check_replaceable(folder: Path, source: Model) -> None:
    """RecipeError unless nothing is lost when a bundle of this model takes the folder's place."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RecipeError(f"{folder}: exists and is not a folder; give another -o")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / MANIFEST).is_file():
        first = min(p.name for p in folder.iterdir())
        raise RecipeError(
            f"{folder}: holds {first!r} and no manifest, so it isn't a bundle and won't be "
            "overwritten; give another -o"
        )
    try:
        bundle = Bundle.load(folder)
    except BundleError as error:
        raise RecipeError(f"{error}; it won't be overwritten, give another -o") from None
    if bundle.manifest["model"]["sha256"] != source.sha256:
        raise RecipeError(
            f"{folder}: holds the bundle of another model ({bundle.name}, sha256 "
            f"{bundle.manifest['model']['sha256'][:12]}; this one is {source.sha256[:12]}); give "
            "another -o or remove the folder"
        )
    added = bundle.added()
    if added:
        raise RecipeError(
            f"{folder}: holds {added[0]!r}, which the build didn't make and a new one would "
            "remove; move it away or give another -o"
        )


def package(findings: Findings, output: Path, work: Path) -> Bundle:
    """Write the bundle to `output`, or to `<output>.failed` when parity missed a gate.

    A failed build leaves an earlier good bundle in `output` alone. It is filled within `work`.
    """
    folder = output if findings.parity.passed else failed_folder(output)
    with folder_aside(folder, within=work) as aside:
        _fill(aside, findings)
    if findings.parity.passed:
        stale = failed_folder(output)
        if (stale / MANIFEST).is_file():
            shutil.rmtree(stale)
    return Bundle.load(folder)


def _fill(folder: Path, findings: Findings) -> None:
    # imported here: only a finished build needs the report's parts
    from deploy.report.content import report_content
    from deploy.report.html import render

    (folder / "model").mkdir()
    for name in ("fused", "equalized", "uncorrected", "quantized"):
        if name in findings.graphs:
            findings.graphs[name].save(folder / "model" / f"{name}.onnx")
    device = findings.device
    if device is not None:
        _copy(device.folder, folder / "device")
    if device is not None and device.absent:
        _copy(findings.engine, folder / "simulation")
        if device.engine is not None:
            _copy(device.engine, folder / "engine")
    else:
        _copy(findings.engine, folder / "engine")
    _copy(findings.evidence, folder / "parity")
    if findings.ladder is not None:
        findings.ladder.save(folder / "parity" / "ladder.json")
    if findings.ranges is not None:
        findings.ranges.save(folder / "ranges.json")
    if findings.audit is not None:
        findings.audit.save(folder / "audit.json")
    if findings.choice is not None:
        findings.choice.save(folder / "precision.json")
    content = report_content(findings)
    write_aside(folder / "report.json", json_bytes(content))
    write_aside(folder / "report.html", render(content, findings.ranges, findings.audit).encode())
    write_manifest(folder, _manifest(folder, findings, content))


def _copy(stage: Path, folder: Path) -> None:
    """A stage's product without the work folder's own record."""
    for file in sorted(p for p in stage.rglob("*") if p.is_file() and p.name != "stage.json"):
        made = folder / file.relative_to(stage)
        made.parent.mkdir(parents=True, exist_ok=True)
        # not copytree: it wraps the system's refusal, a full disk say, into a list of texts
        shutil.copyfile(file, made)


def _manifest(folder: Path, findings: Findings, content: dict[str, Any]) -> dict[str, Any]:
    source = findings.graphs["source"]
    calibration, evaluation = findings.data.calibration, findings.data.evaluation
    ranges = folder / "ranges.json"
    return {
        "status": "ok" if findings.parity.passed else "parity failed",
        "model": {"name": source.name, "sha256": source.sha256},
        "target": findings.target.name,
        "precision": findings.precision,
        "tolerance": findings.tolerance.model_dump(),
        "recipe": findings.recipe.model_dump(mode="json"),
        "data": {
            "calibration_sha256": calibration.sha256() if calibration else None,
            "evaluation_sha256": evaluation.sha256(),
        },
        "ranges_sha256": sha256_of(ranges) if ranges.is_file() else None,
        "tools": findings.tools,
        "command": findings.job_command,
        "results": {**content["summary"], "latency": content["measured"]["latency"]},
    }
