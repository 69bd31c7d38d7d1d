"""Where a Q/DQ graph loses more than rounding explains: each layer by itself, on right inputs.

Noise piles up along a network, so that the last layers look worst. Here every tensor is computed
from the float graph's values of the tensors in front of it, and compared with the noise that sound
quantization of the same values would bring (`expected_noise`). On MobileNetV2, ResNet20,
ShuffleNetV1 and the digits network the two differ by 8 dB at most, where a range clips, and by 0 in
the median.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from deploy.artifacts.ladder import Culprit
from deploy.artifacts.ranges import Ranges
from deploy.ladder.expected_noise import noisy
from deploy.ladder.first_fault import Pair, called
from deploy.ladder.stepped import steps
from deploy.ladder.tensors import Difference, Values, differences, observable, observed

# below what was predicted, for one layer: clipping that pays elsewhere costs up to 8
LAYER_MARGIN_DB = 12.0
# of all outputs: errors of layers add up unevenly
OUTPUT_MARGIN_DB = 8.0
# with a layer that is off, outputs need to have lost no more than this to be worth a word
_NOTICED_DB = 3.0
# nothing in a Q/DQ graph has to be more exact than this
_CEILING_DB = 60.0


@dataclass(frozen=True)
class NoisyPair:
    """A float graph and its Q/DQ form. ranges: the file the form was made with, if known."""

    pair: Pair
    ranges: Ranges | None = None

    @cached_property
    def _values(self) -> list[Values]:
        """What the float graph holds, inputs included."""
        pair = self.pair
        feeds = [pair.feeding.of(pair.exact, run) for run in pair.runs]
        return [{**held, **fed} for held, fed in zip(pair.before, feeds, strict=False)]

    @cached_property
    def _anchors(self) -> list[str]:
        return [name for name in self.pair.names if self.pair.off[name].same_shape]

    @cached_property
    def local(self) -> dict[str, Difference]:
        """Every tensor the Q/DQ graph makes, from right inputs."""
        pair = self.pair
        got = steps(pair.candidate, self._anchors, pair.runs, self._values, pair.feeding)
        return differences(pair.before, got, self._anchors, pair.counts)

    @cached_property
    def _noisy(self) -> tuple[dict[str, Difference], dict[str, Difference]]:
        pair = self.pair
        made = noisy(pair.exact, pair.candidate, self._values, self.ranges)
        if made is None:
            return {}, {}
        model = observable(made)
        alone = steps(model, self._anchors, pair.runs, self._values, pair.feeding)
        outputs = [spec.name for spec in pair.candidate.outputs if spec.name in self._anchors]
        whole = observed(model, outputs, pair.runs, pair.feeding)
        return (
            differences(pair.before, alone, self._anchors, pair.counts),
            differences(pair.before, whole, outputs, pair.counts),
        )

    def expected_db(self, tensor: str) -> float:
        """The least that a sound layer reaches on right inputs."""
        found = self._noisy[0].get(tensor)
        predicted = _CEILING_DB if found is None else min(found.sqnr_db, _CEILING_DB)
        return predicted - LAYER_MARGIN_DB

    def predicted_db(self, output: str) -> float:
        """What rounding alone would leave of an output with all the noise in front of it."""
        found = self._noisy[1].get(output)
        return _CEILING_DB if found is None else min(found.sqnr_db, _CEILING_DB)

    def output_db(self) -> tuple[float, float]:
        """The worst output against what was predicted for it: (observed, predicted)."""
        off = self.pair.off
        names = [spec.name for spec in self.pair.candidate.outputs if spec.name in off]
        if not names:
            return 0.0, 0.0
        worst = min(names, key=lambda n: off[n].sqnr_db - self.predicted_db(n))
        return off[worst].sqnr_db, self.predicted_db(worst)

    def culprits(self) -> tuple[Culprit, ...]:
        """Layers that lose far more than rounding explains, in the graph's order; none where no
        output suffers."""
        observed_db, predicted = self.output_db()
        if observed_db >= predicted - _NOTICED_DB:
            return ()
        gaps = {n: self.local[n].sqnr_db - self.expected_db(n) for n in self._anchors}
        wrong = [name for name in self._anchors if gaps[name] < 0]
        if not wrong and observed_db < predicted - OUTPUT_MARGIN_DB and gaps:
            wrong = [min(gaps, key=lambda name: gaps[name])]
        return tuple(self._culprit(name) for name in wrong)

    def worse_than(self, other: NoisyPair) -> tuple[Culprit, ...]:
        """The layer that lost most against another form of the same graph."""
        lost = {
            name: other.local[name].sqnr_db - self.local[name].sqnr_db
            for name in self._anchors
            if name in other.local
        }
        return (self._culprit(max(lost, key=lambda name: lost[name])),) if lost else ()

    def _culprit(self, tensor: str) -> Culprit:
        nodes = _part(self.pair, set(self._anchors), tensor)
        found, least = self.local[tensor].sqnr_db, self.expected_db(tensor)
        node = nodes[-1]
        why = (
            f"out of right inputs {tensor!r} reaches {found:.1f} dB; rounding it and its weights "
            f"leaves about {least + LAYER_MARGIN_DB:.1f} dB"
        )
        return Culprit(
            called(node), node.op_type, tensor, found, least, tuple(map(called, nodes)), why
        )


def _part(pair: Pair, anchors: set[str], tensor: str) -> list:  # type: ignore[type-arg]
    """The nodes between a tensor and the anchors in front of it, in the graph's order."""
    wanted, found = {tensor}, []
    for node in reversed(pair.candidate.proto.graph.node):
        if not wanted & set(node.output):
            continue
        found.append(node)
        wanted |= set(node.input) - anchors
    return found[::-1]
