"""Q/DQ graphs in every dialect, with samples, for what corrects them."""

from __future__ import annotations

from typing import Any

import numpy as np
from helpers import run

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.calibrate import calibrate
from deploy.quantize import quantize
from deploy.surgery.graph import verified
from deploy.target import Target

DIALECTS: dict[str, dict[str, Any]] = {
    "stored": {},
    "W -> Q -> DQ": {"weight_form": "fp32"},
    "int32 biases": {"bias_form": "int32"},
    "seven bits": {"weight_bits": 7},
    "four bits": {"weight_bits": 4},
    "one scale per tensor": {"weight_per_channel": False},
    "symmetric": {"activation_dtype": "int8", "activation_symmetric": True},
}


def samples_of(model: Model, count: int = 24, *, batch: int = 1) -> list[Sample]:
    """Seeded samples whose channels differ in size and aren't centred."""
    samples = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        feeds = {}
        for spec in model.inputs:
            shape = [batch if i == 0 else d or 4 + seed % 3 for i, d in enumerate(spec.shape)]
            if spec.dtype.kind != "f":
                feeds[spec.name] = random.integers(0, 5, shape).astype(spec.dtype)
                continue
            x = random.standard_normal(shape) + 0.4
            feeds[spec.name] = x.astype(spec.dtype)
        samples.append(Sample(f"s{seed}", feeds))
    return samples


def correlated(model: Model, count: int = 300) -> list[Sample]:
    """Seeded samples of few directions and a little noise along axis 1, as activations are."""
    samples = []
    for sample in samples_of(model, count):
        random = np.random.default_rng(len(sample.name) * 1000 + len(samples))
        mixed = {}
        for name, x in sample.feeds.items():
            channels = x.shape[1]
            few = np.random.default_rng(5).standard_normal((channels, channels // 4 + 1))
            directions = few @ random.standard_normal((few.shape[1], x[0, 0].size or 1))
            y = directions.reshape(1, channels, *x.shape[2:])
            # neighbouring pixels are alike
            y = (np.cumsum(y, axis=-1) / 2 if x.ndim > 2 else y) + 0.1 * x
            mixed[name] = y.astype(np.float32)
        samples.append(Sample(sample.name, mixed))
    return samples


def in_int8(model: Model, samples: list[Sample], **form: Any) -> tuple[Model, Model]:
    """The Q/DQ model and the float one it was made from."""
    target = Target.load("cpu")
    changed = target.quantization.model_copy(update=form)
    target = target.model_copy(update={"quantization": changed})
    exact = Model(verified(model.proto, model.name), model.name)
    return quantize(exact, calibrate(exact, samples, "minmax"), target), exact


def sqnr_db(exact: Model, other: Model, samples: list[Sample]) -> float:
    """Of all outputs over all samples."""
    pairs = [(run(exact, s.feeds), run(other, s.feeds)) for s in samples]
    signal = sum(float((e[n].astype(np.float64) ** 2).sum()) for e, _ in pairs for n in e)
    lost = sum(float(((e[n] - g[n]).astype(np.float64) ** 2).sum()) for e, g in pairs for n in e)
    return float(10 * np.log10(signal / lost))
