"""Runs the fusion on a tiny model and prints what the report of a build would say of it.

python examples/03_add_a_fusion/try_it.py FILE     where the model goes
"""

import sys
from pathlib import Path

import onnx.parser
from drop_relu import drop_relu

from deploy import Model
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.rewrite import rewrite

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[N,8,6,5] x) => (float[N,8,6,5] y, float[N,8,6,5] z)
    <float zero = {0}, float minus = {-1}, float six = {6}>
{
    a = Relu (x)
    y = Clip (a, zero, six)
    b = Relu (y)
    z = Clip (b, minus, six)
}
"""


def main(file: Path) -> None:
    """One Relu goes, the other one stays with a reason."""
    model = Model(onnx.parser.parse_model(MODEL), "tiny")
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save(file)
    graph = to_graph(model)
    for decision in rewrite(graph, "drop_relu", drop_relu):
        print(f"{decision.outcome}: {decision.reason}; {decision.bytes_saved} bytes saved")
    # checked as after every stage: a rewrite that breaks a rule of ONNX ends here
    fused = to_model(graph, model, ())
    for name, each in (("before", model), ("after", fused)):
        print(f"{name}: {', '.join(node.op_type for node in each.proto.graph.node)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{len(sys.argv) - 1} arguments; give the file to write the model to")
    main(Path(sys.argv[1]))
