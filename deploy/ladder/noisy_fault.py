"""Where a Q/DQ graph loses more than rounding explains: each layer by itself, on right inputs.

Noise piles up along a network, so that the last layers look worst. Here every tensor is computed
from the float graph's values of the tensors in front of it, and compared with what sound
quantization of the same values would leave (`expected_noise`). On MobileNetV2, ResNet20,
ShuffleNetV1, DS-CNN, MobileNetV3 and the digits network the two differ by 0.3 dB at most, and by
5.5 where biases were corrected on other samples; without the ranges file by 8, where a range clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from deploy.artifacts.ladder import Culprit
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.ladder.expected_noise import noisy
from deploy.ladder.first_fault import Pair, called
from deploy.ladder.stepped import steps
from deploy.ladder.tensors import Difference, Values, differences, observable, observed

# below what was predicted, for one layer: with the ranges that were used, and without
LAYER_MARGIN_DB, _GUESSED_LAYER_DB = 8.0, 12.0
# where nothing but rounding was done, with those ranges: the forecast is of the same steps
_ROUNDED_DB = 6.0
# of all outputs: errors of layers add up unevenly
OUTPUT_MARGIN_DB, _GUESSED_OUTPUT_DB = 5.0, 8.0
# with a layer that is off, outputs need to have lost no more than this to be worth a word
_NOTICED_DB = 3.0
# nothing in a Q/DQ graph has to be more exact than this
CEILING_DB = 60.0


@dataclass(frozen=True)
class NoisyPair:
    """A float graph and its Q/DQ form. ranges: the file the form was made with, if known.

    like: another form of the same graph that rounds in the same places, whose forecast holds here.
    """

    pair: Pair
    ranges: Ranges | None = None
    like: NoisyPair | None = None

    @property
    def layer_margin_db(self) -> float:
        """What a sound layer may lose beyond the forecast."""
        return _GUESSED_LAYER_DB if self.ranges is None else LAYER_MARGIN_DB

    @property
    def output_margin_db(self) -> float:
        """What the outputs of a sound graph may lose beyond it."""
        return _GUESSED_OUTPUT_DB if self.ranges is None else OUTPUT_MARGIN_DB

    @cached_property
    def _values(self) -> list[Values]:
        """What the float graph holds, inputs included."""
        pair = self.pair
        feeds = [pair.feeding.of(pair.exact, run) for run in pair.runs]
        return [{**held, **fed} for held, fed in zip(pair.before, feeds, strict=False)]

    @cached_property
    def _anchors(self) -> list[str]:
        pair = self.pair
        return [
            name
            for name in pair.names
            if all(
                a[name].shape == b[name].shape
                for a, b in zip(pair.before, pair.after, strict=False)
            )
        ]

    @cached_property
    def _outputs(self) -> list[str]:
        anchors = set(self._anchors)
        return [spec.name for spec in self.pair.candidate.outputs if spec.name in anchors]

    @cached_property
    def local(self) -> dict[str, Difference]:
        """Every tensor the Q/DQ graph makes, from right inputs."""
        pair = self.pair
        got = steps(pair.candidate, self._anchors, pair.runs, self._values, pair.feeding)
        return differences(pair.before, got, self._anchors, pair.counts)

    @cached_property
    def rounded(self) -> Model | None:
        """The float graph with sound rounding where the candidate rounds; None if nowhere."""
        if self.like is not None:
            return self.like.rounded
        pair = self.pair
        made = noisy(pair.exact, pair.candidate, self._values, self.ranges)
        return None if made is None else observable(made)

    @cached_property
    def _layers(self) -> dict[str, Difference]:
        """What rounding leaves of every tensor, from right inputs."""
        if self.like is not None:
            return self.like._layers
        pair = self.pair
        if self.rounded is None:
            return {}
        alone = steps(self.rounded, self._anchors, pair.runs, self._values, pair.feeding)
        return differences(pair.before, alone, self._anchors, pair.counts)

    @cached_property
    def _whole(self) -> dict[str, Difference]:
        """What rounding leaves of the outputs."""
        if self.like is not None:
            return self.like._whole
        pair = self.pair
        if self.rounded is None:
            return {}
        whole = observed(self.rounded, self._outputs, pair.runs, pair.feeding)
        return differences(pair.before, whole, self._outputs, pair.counts)

    def expected_db(self, tensor: str) -> float:
        """The least that a sound layer reaches on right inputs."""
        found = self._layers.get(tensor)
        predicted = CEILING_DB if found is None else min(found.sqnr_db, CEILING_DB)
        return predicted - self.layer_margin_db

    def predicted_db(self, output: str) -> float:
        """What rounding alone would leave of an output with all the noise in front of it."""
        found = self._whole.get(output)
        return CEILING_DB if found is None else min(found.sqnr_db, CEILING_DB)

    def output_db(self) -> tuple[float, float]:
        """The worst output against what was predicted for it: (observed, predicted)."""
        pair = self.pair
        off = differences(pair.before, pair.after, self._outputs, pair.counts)
        if not off:
            return 0.0, 0.0
        worst = min(off, key=lambda n: off[n].sqnr_db - self.predicted_db(n))
        return off[worst].sqnr_db, self.predicted_db(worst)

    def culprits(
        self, *, lost: bool | None = None, only_rounded: bool = False
    ) -> tuple[Culprit, ...]:
        """Layers that lose far more than rounding explains, in the graph's order; none where no
        output suffers.

        lost: whether it is known that one does, so that the worst layer is wanted at least; None
        decides it by these runs, which may be fewer than an output is judged on. only_rounded:
        nothing but rounding was done to the graph, so a layer that is off is wrong whatever the
        outputs say.
        """
        observed_db, predicted = self.output_db()
        sure = only_rounded and self.ranges is not None
        if observed_db >= predicted - _NOTICED_DB and not lost and not sure:
            return ()
        more = self.layer_margin_db - _ROUNDED_DB if sure else 0.0
        gaps = {n: self.local[n].sqnr_db - self.expected_db(n) - more for n in self._anchors}
        wrong = [name for name in self._anchors if gaps[name] < 0]
        if lost is None:
            lost = observed_db < predicted - self.output_margin_db
        if not wrong and lost and gaps:
            wrong = [min(gaps, key=lambda name: gaps[name])]
        return tuple(self._culprit(name, more) for name in wrong)

    def worse_than(self, other: NoisyPair) -> tuple[Culprit, ...]:
        """The layer that lost most against another form of the same graph."""
        lost = {
            name: other.local[name].sqnr_db - self.local[name].sqnr_db
            for name in self._anchors
            if name in other.local
        }
        return (self._culprit(max(lost, key=lambda name: lost[name])),) if lost else ()

    def _culprit(self, tensor: str, more: float = 0.0) -> Culprit:
        """more: what is asked beyond `expected_db`."""
        nodes = _part(self.pair, set(self._anchors), tensor)
        found, least = self.local[tensor].sqnr_db, self.expected_db(tensor) + more
        node = nodes[-1]
        why = (
            f"out of right inputs {tensor!r} reaches {found:.1f} dB; rounding it and its weights "
            f"leaves about {least - more + self.layer_margin_db:.1f} dB"
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
