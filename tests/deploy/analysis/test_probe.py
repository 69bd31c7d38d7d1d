"""The probe measures what it says; how fast this machine is, is nobody's assertion."""

from __future__ import annotations

import pytest
from helpers import feeds_for, run
from onnx import checker

from deploy.analysis.device import Device
from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.probe import convolutions, probe
from deploy.target import Precision, Target


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_timed_model_has_the_flops_it_is_credited_with(precision: Precision) -> None:
    model, flops = convolutions(precision)
    checker.check_model(model.proto, full_check=True)
    layers = layer_costs(model)
    assert sum(layer.flops for layer in layers.costs) == flops
    kinds = {layer.precision for layer in layers.costs if layer.op == "Conv"}
    assert kinds == {precision}
    (value,) = run(model, feeds_for(model)).values()
    assert abs(value).max() > 0


def test_measures_every_precision_and_the_memory() -> None:
    target = Target.load("cpu")
    found = probe(target)
    assert found[0].threads == 1
    assert len({row.threads for row in found}) == len(found)
    for row in found:
        assert row.machine
        # bf16 is left out where the machine has none
        assert set(target.precisions) - {"bf16"} <= set(row.peak_flops) <= set(target.precisions)
        # below a Raspberry Pi Zero or above any CPU, a unit is wrong
        assert all(1e8 < rate < 1e15 for rate in row.peak_flops.values())
        assert 1e8 < row.bandwidth_bytes_per_s < 1e13
    device = Device.of(target).measured(found[-1])
    assert device.measured_on == found[-1].machine
    assert device.roofline.peak_flops == found[-1].peak_flops
    assert device.roofline.on_chip_bytes == target.roofline.on_chip_bytes
