"""Which fusions run together in the tests of whole graphs; a new file is found by itself."""

from __future__ import annotations

from deploy import registry
from deploy.target import Target

# an expansion undoes the recognition of the same name: a target has one of the two
EXPAND, RECOGNIZE = "expand_", "recognize_"
# an approximation computes something else on purpose; its own test says how far off
APPROXIMATE = "approximate_"
# put operators into the graph that ONNX Runtime doesn't know: they run as their expansions
PLUGIN = "plugin_"


def every_fusion(*, expanding: bool = False) -> list[str]:
    """All fusions that keep the numbers but the expansions, or all but the recognitions; the cpu
    target's come first, in its order."""
    first = list(Target.load("cpu").fusions)
    names = first + [name for name in registry.names("fusion") if name not in first]
    undone = RECOGNIZE if expanding else EXPAND
    return [name for name in names if not name.startswith((undone, APPROXIMATE, PLUGIN))]


def exact_fusions() -> list[str]:
    """Those that only move data and keep every bit: conversions and Transposes."""
    return [
        *("hoist_downcast", "sink_upcast", "hoist_quantize", "sink_dequantize"),
        *("sink_transpose", "cancel_transpose", "absorb_transpose"),
    ]


def with_plugins() -> list[str]:
    """The fusions that put plugin operators into the graph, then all others around those."""
    # backwards: shuffle_depthwise wants the shuffles that channel_shuffle would take
    plugins = [name for name in registry.names("fusion")[::-1] if name.startswith(PLUGIN)]
    return [*plugins, *every_fusion()]
