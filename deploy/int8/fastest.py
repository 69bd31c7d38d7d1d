"""8 bits for one build, INT8 or FP8: the fastest engine that passes the gates, and why that one.

Where 8 bits aren't faster than the best float engine of this machine, the float one is shipped and
the reason says so. Where no candidate passes, the noisiest layers go back to float, as few as will
do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from deploy.artifacts.model import Model
from deploy.artifacts.precision import PrecisionChoice
from deploy.artifacts.ranges import Ranges
from deploy.int8.fallback import noisiest, smallest_passing
from deploy.int8.race import Race, of_plugins, shown_ms
from deploy.int8.stages import Int8Stages
from deploy.int8.variants import Candidate, candidates, in_own_float, with_plugins
from deploy.line import Judged
from deploy.on_device.latency_check import TIE
from deploy.placement import NOTHING, Exclude
from deploy.precisions import in_words
from deploy.target import QUANTIZED

# candidates that are judged before layers are reverted one by one
_MOST_TRIES = 3
_MOST_REVERSIONS = 10


@dataclass(frozen=True)
class Shipped:
    """What one build in 8 bits comes to; `graphs` holds "quantized" unless a float engine won, and
    "uncorrected" where that was corrected.

    exclude: what was left in float of it.
    """

    judged: Judged
    exclude: Exclude
    graphs: dict[str, Model]
    ranges: Ranges
    choice: PrecisionChoice


class Int8:
    """One job's way to the engine it ships."""

    def __init__(self, stages: Int8Stages) -> None:
        self.stages = stages
        self.recipe = stages.recipe
        self.excludes: dict[str, Exclude] = {}

    def ship(self) -> Shipped:
        """The engine to ship, judged; its report says whether the gates hold."""
        keep = noisiest(self.stages.noise) if self.recipe.effort == "best" else NOTHING
        listed = {c.name: c for c in self._candidates(keep)}
        found = self.stages.race(list(listed.values()))
        judged: dict[str, Judged] = {}
        for name in found.order[:_MOST_TRIES]:
            if judged and listed[name].precision not in QUANTIZED and self._may_revert:
                break  # a few layers of 8 bits back in float may still be faster
            if self._passes(listed[name], judged):
                return self._shipped(name, found, judged)
        first = next((listed[n] for n in judged if listed[n].precision in QUANTIZED), None)
        if first is not None and first.plain:
            # the same losses, and none that a kernel of ours may add
            first = listed[first.plain]
            if self._passes(first, judged):
                return self._shipped(first.name, found, judged)
        floats = {c.name: c for c in listed.values() if c.precision not in QUANTIZED}
        reverted = first is not None and self._may_revert
        tried = self._reverted(first, listed, judged) if first is not None and reverted else []
        passing = {c.name: c for c in tried if self._passes(c, judged)}
        if passing:
            # what the gate costs in time may be all that INT8 gained
            passing |= {c.name: c for c in with_plugins(list(passing.values()))} | floats
            found = found.also(self.stages.race(list(passing.values())))
            order = [n for n in found.order if n in passing]
            order += [n for n, c in passing.items() if not c.plain]
        elif self.recipe.effort == "fast":
            order = []
        else:
            # with kernels of ours only what was built
            order = [n for n, c in floats.items() if not c.plain or n in found.times]
            order.sort(key=lambda n: (found.times.get(n, float("inf")), n))
        best = next((n for n in order if self._passes((passing | floats)[n], judged)), None)
        return self._shipped(best or next(iter(judged)), found, judged)

    def _candidates(self, keep: Exclude) -> list[Candidate]:
        return candidates(self.stages.target, self.recipe, keep, self.stages.precision)

    @property
    def _may_revert(self) -> bool:
        return self.recipe.effort != "fast" and self.stages.calibrated

    def _passes(self, candidate: Candidate, judged: dict[str, Judged]) -> bool:
        if candidate.name not in judged:
            judged[candidate.name] = self.stages.judged(candidate)
            self.excludes[candidate.name] = candidate.exclude
        return judged[candidate.name].report.passed

    def _reverted(
        self, fastest: Candidate, listed: Mapping[str, Candidate], judged: dict[str, Judged]
    ) -> list[Candidate]:
        """All that were tried on the way to the fewest layers back in float, the fewest first of
        those that pass. They go back to the target's own float type: a narrower one loses by
        itself, and is tried last, with the layers that were found."""
        first = in_own_float(fastest, self.stages.target, list(listed.values()))
        if self._passes(first, judged):
            return [first]
        tried: list[Candidate] = []

        def passes(keep: Exclude) -> bool:
            tried.append(_with_float(first, keep))
            return self._passes(tried[-1], judged)

        built = judged[first.name].built.graph
        already = {d.subject for d in built.decisions if d.rule == "exclude"}
        keep = smallest_passing(self.stages.noise, passes, already=already, most=_MOST_REVERSIONS)
        if keep is not None and first is not fastest:
            tried.append(_with_float(fastest, keep))
        return sorted(tried, key=lambda c: len(c.exclude.layers))

    def _shipped(self, name: str, found: Race, judged: dict[str, Judged]) -> Shipped:
        built = judged[name].built
        graphs = {}
        if self.stages.equalized is not self.stages.fused:
            graphs["equalized"] = self.stages.equalized
        if built.precision in QUANTIZED:
            plain = self.stages.uncorrected(name)
            graphs |= {"uncorrected": plain} if plain is not None else {}
            graphs["quantized"] = built.graph
        floats = [d for d in built.graph.decisions if d.rule == "exclude"]
        choice = PrecisionChoice(
            chosen=name,
            reason=_reason(name, found, judged),
            measured_here=found.measured_here,
            tried=tuple(found.tried(judged)),
            sensitivity=self.stages.known_noise,
            kept_float={d.subject: d.reason for d in floats},
        )
        return Shipped(judged[name], self.excludes[name], graphs, self.stages.ranges, choice)


def _with_float(candidate: Candidate, keep: Exclude) -> Candidate:
    count = len(keep.layers)
    layers = "1 layer" if count == 1 else f"{count} layers"
    return replace(
        candidate,
        name=f"{candidate.name}, {layers} back in float",
        description=f"{candidate.description}; the {count} noisiest back in float",
        exclude=candidate.exclude.also(keep),
    )


def _reason(name: str, found: Race, judged: dict[str, Judged]) -> str:
    """Why this engine is the one, in a sentence."""
    eight = next((in_words(e.precision) for e in found.entries if e.precision in QUANTIZED), "INT8")
    if not judged[name].report.passed:
        return "no candidate passed the gates; this is the first that was tried"
    failed = {n for n, other in judged.items() if not other.report.passed}
    how, ms = found.how, found.times.get(name)
    if not _is_int8(judged[name]):
        tried = [n for n, other in judged.items() if _is_int8(other)]
        if tried and failed.issuperset(tried):
            return (
                f"none of {len(tried)} {eight} engines that were judged passed the gates, {name} "
                "does"
            )
        said = f"no {eight} engine that passes is faster than {name} ({how}); so {name} is shipped"
        return said + of_plugins(name, found)
    others = [n for n in found.times if n not in failed | {name}]
    if "back in float" in name and ms is None:
        return "the fewest layers back in float with which the gates hold"
    if ms is None or not others:
        return "the target's own placement; nothing else was tried"
    rivals = [n for n in others if not found.is_int8(n)] or others
    best = min(rivals, key=lambda n: found.times[n])
    text = f"{how}: {shown_ms(ms)}, {found.times[best] / ms:.2f}x the speed of {best}"
    text += of_plugins(name, found)
    if "back in float" in name:
        text = f"the fewest layers back in float with which the gates hold; {text}"
    if not found.measured_here and found.times[best] < (1 - TIE) * ms:
        return (
            f"{text}; {eight} was asked for, and a prediction takes it away from nobody: time both"
        )
    level = [n for n in others if (1 - TIE) * ms <= found.times[n] < ms]
    if not level:
        return text
    counts = {entry.name: entry.int8_layers for entry in found.entries}
    more = counts.get(name, 0) < counts.get(level[0], 0)
    return f"{text}; {level[0]} is as fast, within the noise" + (
        ", with more layers in 8 bits" if more else ""
    )


def _is_int8(judged: Judged) -> bool:
    return judged.built.precision in QUANTIZED
