"""The mean error that rounding leaves in a layer's output, taken back in its bias.

    bias[c] += E[y_float[c]] - E[y_int8[c]]

Rounded weights move every output channel by a constant, (Wq - W) E[x], and clipped activations by
another. Both are taken back layer by layer in the graph's order: the INT8 side runs on inputs that
are quantized and already corrected, so that a layer also mends what the ones before it left over.
Costs nothing on the device.

Where ranges clip much (percentiles), the mean error comes from few large values, and taking it back
can lower SQNR: a correction of a large share of a layer's output is worth a look.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.2, in the sequential form with data of its appendix D.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.model import Decision, Model
from deploy.batches import batches, feeds_of
from deploy.observation.means import channel_means
from deploy.observation.walk import Reached, Walk
from deploy.weights.layer_biases import LayerBias, layer_biases, with_biases


def bias_correction(quantized: Model, exact: Model, samples: Sequence[Sample]) -> Model:
    """The Q/DQ model with corrected biases; a layer without a bias gets one where it can.

    Uses as many samples as fit into memory between two layers, spread over all. CalibrationError
    for no samples, and when the runtime can't run the model up to a layer, with the layer's name.
    """
    layers, refused = layer_biases(quantized)
    known = {output for node in exact.proto.graph.node for output in node.output}
    for layer in layers:
        if layer.output not in known:
            refused[layer.output] = "the float model has no such value to compare with"
    layers = [layer for layer in layers if layer.output in known]
    skipped = [_decision("skipped", name, reason) for name, reason in refused.items()]
    if not layers:
        reason = "no layer of integer weights has a bias to correct"
        return quantized.derive(
            quantized.proto, [*skipped, _decision("note", quantized.name, reason)]
        )
    by_output = {layer.output: layer for layer in layers}
    targets = {layer.output: layer.axis for layer in layers}
    runs = [feeds_of(chunk, size) for chunk, size in batches(samples, quantized.inputs)]
    walk = Walk(quantized, targets, runs)
    means = channel_means(exact, targets, walk.feeds)
    added: dict[str, np.ndarray] = {}
    shares: dict[str, float] = {}

    def mend(seen: Reached) -> np.ndarray:
        error = means[seen.target] - seen.mean
        added[seen.target] = by_output[seen.target].rounded(error)
        largest = float(np.abs(added[seen.target]).max())
        shares[seen.target] = largest / seen.span if seen.span > 0 else 0.0
        return added[seen.target]

    walk.run(mend)
    proto = with_biases(quantized, [(layer, added[layer.output]) for layer in layers])
    applied = [_applied(layer, added[layer.output], shares[layer.output]) for layer in layers]
    return quantized.derive(proto, [*applied, *skipped, _largest(shares, len(walk.feeds))])


def _applied(layer: LayerBias, change: np.ndarray, share: float) -> Decision:
    reason = (
        f"mean error of up to {np.abs(change).max():.3g}, {share:.2%} of the output's span, in "
        f"{change.size} channels"
    )
    return _decision("applied", layer.output, reason)


def _largest(shares: dict[str, float], runs: int) -> Decision:
    name = max(shares, key=lambda output: shares[output])
    reason = f"the largest correction, {shares[name]:.2%} of the output's span; over {runs} runs"
    return _decision("note", name, reason)


def _decision(outcome: str, subject: str, reason: str) -> Decision:
    return Decision("correct", "bias_correction", outcome, subject, reason)  # type: ignore[arg-type]
