"""The choice between engines with kernels of ours and without where trtexec builds and times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_folder import device_report
from two_graphs import EQUAL, FAST, SLOW, device, graph

from deploy.on_device.finish_main import main
from deploy.on_device.trtexec_way import TrtexecWay

pytestmark = pytest.mark.slow


class TestByTrtexec:
    @pytest.mark.parametrize(
        ("plain", "chosen", "nodes"),
        [(SLOW, "with plugins", 3), (EQUAL, "without", 3), (FAST, "without", 2)],
        ids=["slow", "equal", "fast"],
    )
    def test_the_same_choice(
        self,
        tmp_path: Path,
        trtexec: Callable[..., str],
        tools: Path,
        plain: str,
        chosen: str,
        nodes: int,
    ) -> None:
        folder = device(tmp_path / "device", graph(plain))
        assert main([str(folder), "--trtexec", trtexec(node_ms=0.25)]) == 0
        report = device_report(folder)
        assert report["plugin_choice"]["chosen"] == chosen
        assert bool(report["plugins"]) == (chosen == "with plugins")
        assert report["latency"]["median_ms"] == 0.25 * nodes

    def test_engines_take_turns(self, tmp_path: Path) -> None:
        """Of three turns each gives the middle one."""
        order: list[str] = []

        class Engine:
            def __init__(self, name: str, medians: list[float]) -> None:
                self.name, self.medians = name, medians

            def latency(self, feeds: object, runs: int, batch: int) -> dict[str, Any]:
                order.append(self.name)
                return {"median_ms": self.medians.pop(0)}

        engines: Any = [Engine("a", [3.0, 1.0, 2.0]), Engine("b", [5.0, 5.0, 4.0])]
        rows = TrtexecWay.time(None, engines, {}, 20, 1)  # type: ignore[arg-type]
        assert order == ["a", "b"] * 3
        assert [row["median_ms"] for row in rows] == [2.0, 5.0]

    def test_the_printed_command_is_the_plain_one_unless_asked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = device(tmp_path / "device")
        assert main([str(folder), "--print-trtexec"]) == 0
        printed = capsys.readouterr().out
        assert "model_plain.onnx" in printed and "--plugins" not in printed
        assert main([str(folder), "--print-trtexec", "--with-plugins"]) == 0
        printed = capsys.readouterr().out
        assert "model.onnx" in printed and "--plugins=libonnx_deploy_plugins.so" in printed
