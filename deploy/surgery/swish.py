"""Swish without an exponential: x / (1 + p(x)^n), p a polynomial near exp(-x / n).

exp(-x) = exp(-x/n)^n, where exp(-x/n) is so flat that a polynomial of low degree follows it, and
squaring k times gives the power n = 2^k. x is limited to ±end first: past it the division by
1 + e^-end gives x to rounding, and the value is 0 but for end * e^-end. Coefficients are fitted to
the least maximal error of the whole expression by iteratively reweighted least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import producer
from deploy.surgery.region import sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip


@dataclass(frozen=True)
class Division:
    """x / (1 + p^(2^squarings)). coefficients: of p, the constant first. error: the largest
    difference to x * sigmoid(x) in float32, relative where that is above 1."""

    coefficients: tuple[float, ...]
    squarings: int
    end: float
    error: float

    def nodes(self, x: gs.Tensor, y: gs.Variable) -> tuple[New, ...]:
        """What computes y from x."""
        made: list[New] = []

        def node(op: str, *inputs: gs.Tensor | float, out: gs.Variable | None = None) -> gs.Tensor:
            given = tuple(np.array(v, np.float32) if isinstance(v, float) else v for v in inputs)
            out = gs.Variable("", x.dtype, x.shape) if out is None else out
            made.append(New(op, given, (out,)))
            return out

        above = node("Max", x, -self.end)
        limited = node("Min", above, self.end)
        *rest, last = self.coefficients
        power: gs.Tensor | float = last
        for coefficient in reversed(rest):
            power = node("Add", node("Mul", limited, power), coefficient)
        for _ in range(self.squarings):
            power = node("Mul", power, power)
        node("Div", above, node("Add", power, 1.0), out=y)
        return tuple(made)


def divided(node: gs.Node, form: Division) -> Replace | Skip | None:
    """Replace the swish, x * sigmoid(x), that this node ends."""
    found = _swish(node)
    if found is None or isinstance(found, Skip):
        return found
    x, removed = found
    if x.dtype != np.float32:
        return Skip(f"the division is for float32, and this is {type_name(x)}")
    if x.shape is not None and len(x.shape) > 2 and all(d == 1 for d in x.shape[2:]):
        return Skip("one value per channel: the division costs more than the exponential there")
    degree, power = len(form.coefficients) - 1, 2**form.squarings
    reason = (
        f"swish as x / (1 + p^{power}), p of degree {degree}: {form.error:g} off at most, "
        "and no exponential"
    )
    return Replace(removed, form.nodes(x, node.outputs[0]), reason)


def _swish(node: gs.Node) -> tuple[gs.Tensor, tuple[gs.Node, ...]] | Skip | None:
    """x, and the nodes that go, where the node computes x * sigmoid(x)."""
    if node.op == "Swish":
        alpha = float(node.attrs.get("alpha", 1.0))
        if alpha != 1.0:
            return Skip(f"alpha = {alpha:g}: the division is fitted to x * sigmoid(x)")
        return node.inputs[0], (node,)
    if node.op != "Mul":
        return None
    for x, factor in (node.inputs, node.inputs[::-1]):
        gate = producer(factor)
        if gate is not None and gate.op == "Sigmoid" and gate.inputs[0] is x:
            return x, sole_use(node, (gate,))
    return None
