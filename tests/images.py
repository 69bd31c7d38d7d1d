"""Small models of an image: text with the weights it reads, results of any size."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx.shape_inference
from helpers import model_from

from deploy.artifacts.model import Model


def image_model(text: str, values: Mapping[str, np.ndarray]) -> Model:
    """The model of that ONNX text, with those of the values that it names; the shapes of its
    outputs are inferred, whatever the text says."""
    used = {name: v for name, v in values.items() if re.search(rf"[(,] ?{name}[,)]", text)}
    made = model_from(text, used)
    for output in made.proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return Model(onnx.shape_inference.infer_shapes(made.proto), made.name)
