"""Writes a small network with the plugin's operator in it, as an exporter would.

python examples/04_add_a_plugin/make_model.py FILE
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

TEXT = """
<ir_version: 8, opset_import: ["" : 17, "onnx_deploy" : 1]>
squared (float[N,3,16,12] x) => (float[N,8] y)
{
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    s = onnx_deploy.SquaredRelu (c)
    p = GlobalAveragePool (s)
    y = Flatten (p)
}
"""


def main(file: Path) -> None:
    """The network, its weights seeded."""
    model = onnx.parser.parse_model(TEXT)
    weights = np.random.default_rng(7).normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)
    print(f"{file}: {', '.join(node.op_type for node in model.graph.node)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{len(sys.argv) - 1} arguments; give the file to write")
    main(Path(sys.argv[1]))
