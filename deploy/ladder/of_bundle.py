"""The way a bundle came, from the files it holds, and from the model where that is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from calibrators.samples import Sample
from deploy.artifacts.bundle import Bundle
from deploy.artifacts.ladder import Ladder
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.artifacts.stored_arrays import stored_arrays
from deploy.batches import whole_inputs
from deploy.compare import engine_folder, open_candidate, precision_at
from deploy.data import open_data
from deploy.errors import BundleError
from deploy.fold_input import fold_input
from deploy.ladder.climb import Shipped, Way, ladder
from deploy.ladder.served import Server
from deploy.ladder.tensors import Feeding, Values
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.without_qdq import remove_qdq
from deploy.widen import computed_kinds, widen

_KEPT = ("fused", "equalized", "uncorrected", "quantized", "compressed")
# outputs are compared on so many samples of a dataset
SAMPLES = 8


def bundle_ladder(
    folder: Path,
    recipe: Recipe,
    *,
    model: Path | None = None,
    url: str = "",
    name: str = "",
) -> Ladder:
    """The ladder of a bundle, on the recipe's data or the samples stored in it.

    model: the untouched model, the first rung then; else the bundle's fused graph stands there.
    url: a server that runs the bundle under `name` (default: the model's), the last rung then.
    """
    with bundle_way(folder, recipe, model=model, url=url, name=name) as (way, samples, about):
        return ladder(way, samples, about)


@contextmanager
def bundle_way(
    folder: Path, recipe: Recipe, *, model: Path | None = None, url: str = "", name: str = ""
) -> Iterator[tuple[Way, list[Sample], str]]:
    """The way, the samples, and what those are, in words; its engine is closed at the end."""
    bundle = Bundle.load(folder)
    own = _own_recipe(bundle)
    graphs = _graphs(bundle, own, model)
    ranges = folder / "ranges.json"
    found = Ranges.load(ranges) if ranges.is_file() else None
    last = list(graphs.values())[-1]
    samples, about = _samples(folder, recipe, own, last)
    place = engine_folder(folder)
    with open_candidate(folder, recipe) as engine:
        server = Server(url, name or bundle.name) if url else None
        yield (
            Way(
                graphs=graphs,
                ranges=found,
                shipped=Shipped(engine, precision_at(folder, recipe), place),
                feeding=Feeding(own.preprocess()),
                limits=_limits(bundle, recipe),
                limits_from="the bundle's tolerance",
                served=_asking(server, [spec.name for spec in engine.outputs]),
                served_inputs=engine.inputs,
                approximate=bool(own.approximate),
            ),
            samples,
            about,
        )


def _asking(server: Server | None, outputs: list[str]) -> Callable[[Values], Values] | None:
    return None if server is None else lambda feeds: server.infer(feeds, outputs)


def _own_recipe(bundle: Bundle) -> Recipe:
    """What the bundle was built with."""
    try:
        return Recipe.model_validate(bundle.manifest.get("recipe", {}))
    except ValidationError:
        raise BundleError(
            f"{bundle.folder}: its recipe is of another version; build it again"
        ) from None


def _graphs(bundle: Bundle, own: Recipe, model: Path | None) -> dict[str, Model]:
    found: dict[str, Model] = {}
    if model is not None:
        source = read(model)
        if source.sha256 != bundle.manifest["model"]["sha256"]:
            raise BundleError(
                f"{model}: sha256 {source.sha256[:12]}, {bundle.folder} was built from "
                f"{str(bundle.manifest['model']['sha256'])[:12]}; give the model it was built from"
            )
        found["source"] = source
        found["loaded"] = load(source, own.shape)
        if own.fold_input:
            found["rawinput"] = fold_input(found["loaded"], own.preprocess())
    for name in _KEPT:
        path = bundle.folder / "model" / f"{name}.onnx"
        if path.is_file():
            found[name] = Model.load(path).named(bundle.name)
    # the stage wrote no file of its own
    if "loaded" in found and "fused" in found and not computed_kinds(found["fused"]):
        loaded = found["loaded"]
        if computed_kinds(loaded):
            found["widened"] = widen(loaded)
    if "quantized" not in found:  # a float engine is compiled from the fused graph
        found.pop("equalized", None)
    if not found:
        raise BundleError(f"{bundle.folder}: holds no graphs; give the model too")
    return found


def without_qdq(quantized: Model) -> Model:
    """The float graph of a Q/DQ one, with the weights as they are stored."""
    graph = to_graph(quantized)
    remove_qdq(graph)
    return to_model(graph, quantized, ())


def _samples(folder: Path, recipe: Recipe, own: Recipe, model: Model) -> tuple[list[Sample], str]:
    if recipe.data is not None or recipe.eval_data is not None:
        chosen = own.model_copy(
            update={
                "data": None,
                "eval_data": recipe.eval_data or recipe.data,
                "eval_samples": SAMPLES,
                "data_key": recipe.data_key or own.data_key,
            }
        )
        found = open_data(chosen, model).evaluation
        return list(found), found.about
    return stored_samples(folder, model), "samples stored in the bundle"


def stored_samples(folder: Path, model: Model) -> list[Sample]:
    """The parity samples of a bundle."""
    path = folder / "parity" / "samples.npz"
    feeds = stored_arrays(path)
    whole = whole_inputs(model.inputs)
    count = min(SAMPLES, len(next(iter(feeds.values()))))
    return [
        Sample(
            f"parity sample {i}",
            {n: x[i] if n in whole else x[i : i + 1] for n, x in feeds.items()},
        )
        for i in range(count)
    ]


def _limits(bundle: Bundle, recipe: Recipe) -> dict[str, float]:
    """Per output the least SQNR; "" for those that have none of their own."""
    tolerance = bundle.manifest.get("tolerance") or {}
    least = recipe.min_sqnr_db if recipe.min_sqnr_db is not None else tolerance.get("min_sqnr_db")
    limits = {} if least is None else {"": float(least)}
    # recipe tables such as [outputs.boxes], where this version has them
    for name, wanted in (getattr(recipe, "outputs", None) or {}).items():
        if wanted.min_sqnr_db is not None:
            limits[name] = wanted.min_sqnr_db
    return limits
