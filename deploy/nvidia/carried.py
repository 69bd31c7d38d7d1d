"""INT8 beside a float graph, in the graph's own file: its scales and types stand in its metadata.

So what a compiler on the device is given is one model, as everywhere else: a stage's product with
one hash. Parsers pass over metadata.
"""

from __future__ import annotations

import json
from typing import get_args

import numpy as np

from deploy.artifacts.model import Model, copy_proto
from deploy.errors import BuildError, one_line
from deploy.nvidia.implicit import Implicit, Kind

_KEY = "onnx_deploy.int8_beside"


def carried(told: Implicit) -> Model:
    """The float graph, with what is told beside it inside."""
    proto = copy_proto(told.model.proto)
    scales = {name: float(scale) for name, scale in told.scales.items()}
    text = json.dumps({"scales": scales, "precisions": dict(told.precisions)})
    proto.metadata_props.add(key=_KEY, value=text)
    return told.model.derive(proto, told.model.decisions)


def told_in(model: Model) -> Implicit | None:
    """What `carried` wrote, and the graph without it; None where nothing is, BuildError where it is
    something else."""
    texts = [row.value for row in model.proto.metadata_props if row.key == _KEY]
    if not texts:
        return None
    try:
        rows = json.loads(texts[0])
        scales = {str(name): np.float32(scale) for name, scale in rows["scales"].items()}
        precisions = {str(name): kind for name, kind in rows["precisions"].items()}
        unknown = [kind for kind in precisions.values() if kind not in get_args(Kind)]
        if unknown or "*" not in precisions:
            raise ValueError(
                f"precision {unknown[0]!r}" if unknown else "no precision for the rest"
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(
            f"{model.name}: damaged INT8 description in the metadata ({one_line(error)}); build it "
            "again"
        ) from None
    proto = copy_proto(model.proto)
    kept = [row for row in proto.metadata_props if row.key != _KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return Implicit(model.derive(proto, model.decisions), scales, precisions)
