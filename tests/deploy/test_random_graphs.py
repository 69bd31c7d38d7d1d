"""Thousands of random graphs through every fusion: the same outputs, bit for bit where elements
only moved.

A failure shrinks, and is saved as cases/found.onnx. Mend the fusion, give the case a name that says
what was wrong, and it is replayed for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from fusion_orders import every_fusion, exact_fusions, with_plugins
from helpers import feeds_for, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plugin_graphs import expanded
from random_channels_last import LAST_AXIS
from random_graphs import COMPUTED, COPIED, STEPPED, RandomGraph, random_graphs

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.graph import verified

pytestmark = pytest.mark.slow

CASES = Path(__file__).with_name("cases")
LARGEST_CASE = 10_000
# by how exactly a value can be compared: its bits, float32 round-off, float16 round-off
TOLERANCES = {COPIED: 0.0, COMPUTED: 1e-5}
AFTER_ROUNDING = 4e-3
SEEDS = (7, 8, 9, 10)
ORDERS = {
    "in order": every_fusion(),
    "expanding": every_fusion(expanding=True),
    "backwards": every_fusion()[::-1],
    "plugins": with_plugins(),
    "exact": exact_fusions(),
}
fired: Counter[str] = Counter()


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def assert_unchanged(
    proto: onnx.ModelProto, noise: dict[str, int], names: Sequence[str], *, exact: bool = False
) -> None:
    before = Model(verified(proto, "random"), "random")
    after = fuse(before, names)
    applied = [d for d in after.decisions if d.outcome == "applied"]
    fired.update(d.rule for d in applied)
    fired["examples"] += 1
    assert [str(s) for s in after.inputs] == [str(s) for s in before.inputs]
    assert [s.name for s in after.outputs] == [s.name for s in before.outputs]
    if not applied:
        return
    fired["fused examples"] += 1
    said = "\n".join(f"{d.rule}: {d.subject}: {d.reason}" for d in applied)
    after = expanded(after)
    # a step's edge is met by chance: a defect shows with every sample, an unlucky value with one
    noise = dict.fromkeys(noise, COPIED) if exact else noise
    seeds = SEEDS if STEPPED in noise.values() else SEEDS[:1]
    wrong = [differences(before, after, noise, seed) for seed in seeds]
    assert not all(wrong), f"{wrong[0]}\nafter\n{said}"


def differences(before: Model, after: Model, noise: dict[str, int], seed: int) -> list[str]:
    feeds = feeds_for(before, seed=seed)
    expected, got = run(before, feeds), run(after, feeds)
    found = []
    for name, value in expected.items():
        if got[name].dtype != value.dtype or got[name].shape != value.shape:
            found.append(f"{name}: {value.dtype}{value.shape}, now {got[name].shape}")
            continue
        wide, other = value.astype(np.float64), got[name].astype(np.float64)
        tolerance = TOLERANCES.get(noise[name], AFTER_ROUNDING)
        # values are near 1 by construction; below that, differences of larger ones are meant
        scale = max(1.0, np.abs(wide).max(initial=0.0))
        error = np.abs(other - wide).max(initial=0.0)
        if not error <= tolerance * scale:
            found.append(f"{name}: off by {error:.3g} of {scale:.3g}")
    return found


def check(graph: RandomGraph, order: str) -> None:
    """The property; the last failure, which is the smallest, stays on disk."""
    try:
        assert_unchanged(graph.model, graph.noise, ORDERS[order], exact=order == "exact")
    except Exception:
        save(graph, order)
        raise


def save(graph: RandomGraph, order: str) -> None:
    case = onnx.ModelProto()
    case.CopyFrom(graph.model)
    found = {"order": order, **{f"noise {name}": str(n) for name, n in graph.noise.items()}}
    onnx.helper.set_model_props(case, found)
    CASES.mkdir(exist_ok=True)
    (CASES / "found.onnx").write_bytes(case.SerializeToString())
    print(onnx.printer.to_text(graph.model))


# what channels pass through on their way from one convolution to the next
CHANNELS = ["channels", "shuffle", "shuffle_unit", "split", "both_halves", "concat", "gather"]
CHANNELS += ["affine", "batch_norm", "select", "max_pool", "pool", "pad", "combine"]


@examples(700)
@given(
    graph=random_graphs(["copies", "computes", "channels"]),
    order=st.sampled_from(["in order", "expanding"]),
)
def test_any_graph_computes_the_same(graph: RandomGraph, order: str) -> None:
    check(graph, order)


@examples(800)
@given(graph=random_graphs(CHANNELS), order=st.just("in order"))
def test_a_convolutional_network_computes_the_same(graph: RandomGraph, order: str) -> None:
    check(graph, order)


@examples(500)
@given(graph=random_graphs(["copies"]), order=st.just("in order"))
def test_moved_data_keeps_its_bits(graph: RandomGraph, order: str) -> None:
    check(graph, order)


@examples(400)
@given(graph=random_graphs(["copies", "computes", "channels"]), order=st.just("exact"))
def test_moving_data_around_layers_keeps_every_bit(graph: RandomGraph, order: str) -> None:
    """What casts, Q/DQ and Transposes do, whatever computes between them."""
    check(graph, order)


@examples(500)
@given(
    graph=random_graphs([*LAST_AXIS, "conv", "combine"]),
    order=st.sampled_from(["in order", "expanding"]),
)
def test_channels_last_compute_the_same(graph: RandomGraph, order: str) -> None:
    check(graph, order)


@examples(200)
@given(
    graph=random_graphs([*LAST_AXIS, "transpose", "conv"]),
    order=st.just("exact"),
)
def test_channels_last_move_with_every_bit(graph: RandomGraph, order: str) -> None:
    check(graph, order)


@examples(200)
@given(graph=random_graphs(["copies", "computes", "channels"]), order=st.just("backwards"))
def test_the_order_of_fusions_is_free(graph: RandomGraph, order: str) -> None:
    check(graph, order)


@examples(200)
@given(
    graph=random_graphs(["copies", "channels", "conv", "select"]),
    order=st.just("plugins"),
)
def test_plugin_operators_compute_the_same(graph: RandomGraph, order: str) -> None:
    """Each as its expansion, which the plugin's own tests hold against its NumPy truth."""
    check(graph, order)


def test_the_examples_were_worth_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Graphs that no rule fires on prove nothing."""
    if fired["examples"] < 2000:
        pytest.skip("runs behind the tests above")
    silent = [name for name in with_plugins() if name not in fired]
    with capsys.disabled():
        print(f"\nrandom graphs: {dict(fired)}; never fired: {', '.join(silent) or 'none'}")
    assert fired["fused examples"] >= 0.3 * fired["examples"]


@pytest.mark.parametrize("path", sorted(CASES.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_saved_case_stays_mended(path: Path) -> None:
    assert path.stat().st_size < LARGEST_CASE
    proto = onnx.load(path)
    props = {p.key: p.value for p in proto.metadata_props}
    noise = {k.removeprefix("noise "): int(v) for k, v in props.items() if k.startswith("noise ")}
    order = props["order"]
    assert_unchanged(proto, noise, ORDERS[order], exact=order == "exact")
