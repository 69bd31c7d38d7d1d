"""digits.onnx, calib.npz and test.npz next to this file: a small trained network and its data.

The network is a ShuffleNet-style classifier of scikit-learn's 8x8 handwritten digits. Its graph
is written node by node from the trained weights, the way an exporter leaves it before any fusion:
BatchNormalization stands alone, a channel shuffle is Reshape-Transpose-Reshape. That is what
onnx-deploy is here to clean up, so nothing is folded in this file.

To run (under a minute on two cores; onnx-deploy itself needs none of these but onnx):

    pip install torch==2.13.0 scikit-learn onnx
    python examples/digits/train.py
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
SEED = 2024
TEST_SAMPLES = 540
EPOCHS, BATCH = 60, 64
GROUPS = 3
PARITY_ATOL = 1e-4


class ConvBn(nn.Module):
    """A bias-free convolution with "same" padding, batch norm and, if asked, ReLU."""

    def __init__(
        self, channels: tuple[int, int], kernel: int = 1, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        pad = kernel // 2
        self.conv = nn.Conv2d(*channels, kernel, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018), with the hard sigmoid of MobileNetV3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * functional.hardsigmoid(self.expand(gate))


class Unit(nn.Module):
    """Grouped 1x1 -> shuffle -> depthwise 3x3 -> grouped 1x1, or SE and a dense 1x1 (`gated`)."""

    def __init__(self, channels: tuple[int, int], *, stride: int = 1, gated: bool = False) -> None:
        super().__init__()
        width = channels[1]
        self.residual = stride == 1 and channels[0] == width
        self.expand = ConvBn(channels, groups=GROUPS)
        self.depthwise = ConvBn((width, width), 3, stride=stride, groups=width)
        self.se = Squeeze(width) if gated else None
        self.project = ConvBn((width, width), groups=1 if gated else GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.expand(x))
        y = self.depthwise(functional.channel_shuffle(y, GROUPS))
        if self.se is not None:
            y = self.se(functional.relu(y))
        y = self.project(y)
        return functional.relu(x + y if self.residual else y)


class Digits(nn.Module):
    """logits: float32[N, 10] of image: float32[N, 1, 8, 8] with values in 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBn((1, 48), 3)
        self.unit1 = Unit((48, 96), stride=2)
        self.unit2 = Unit((96, 96))
        self.unit3 = Unit((96, 192), gated=True)
        self.head = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = self.unit3(self.unit2(self.unit1(x)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@dataclass
class Writer:
    """An ONNX graph that grows node by node; every method returns the name of its output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        output = "logits" if name == "head" else f"{name}/{kind}_out"
        node = helper.make_node(kind, list(inputs), [output], name=f"{name}/{kind}", **attributes)
        self.nodes.append(node)
        return output

    def constant(self, name: str, value: Tensor | list[int]) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else np.array(value, np.int64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, name: str, x: str, layer: nn.Conv2d) -> str:
        inputs = [x, self.constant(f"{name}.weight", layer.weight)]
        if layer.bias is not None:
            inputs.append(self.constant(f"{name}.bias", layer.bias))
        kernel, stride, pad = layer.kernel_size, layer.stride, layer.padding
        assert isinstance(pad, tuple)
        attributes = {"kernel_shape": kernel, "strides": stride, "pads": pad * 2}
        return self.op("Conv", name, *inputs, group=layer.groups, dilations=[1, 1], **attributes)

    def conv_bn(self, name: str, x: str, layer: ConvBn) -> str:
        y = self.conv(f"{name}.conv", x, layer.conv)
        bn = f"{name}.bn"
        tensors = layer.bn.state_dict()
        keys = ("weight", "bias", "running_mean", "running_var")
        parameters = [self.constant(f"{bn}.{key}", tensors[key]) for key in keys]
        return self.op("BatchNormalization", bn, y, *parameters, epsilon=layer.bn.eps, momentum=0.9)

    def shuffle(self, name: str, x: str, channels: int, size: int) -> str:
        # One Reshape keeps the batch with 0 and the other with -1: exporters write either.
        split = self.constant(f"{name}.split", [0, GROUPS, channels // GROUPS, size, size])
        merge = self.constant(f"{name}.merge", [-1, channels, size, size])
        y = self.op("Reshape", f"{name}.split", x, split)
        y = self.op("Transpose", name, y, perm=[0, 2, 1, 3, 4])
        return self.op("Reshape", f"{name}.merge", y, merge)

    def squeeze(self, name: str, x: str, layer: Squeeze) -> str:
        y = self.op("GlobalAveragePool", name, x)
        y = self.op("Relu", f"{name}.reduce", self.conv(f"{name}.reduce", y, layer.reduce))
        y = self.conv(f"{name}.expand", y, layer.expand)
        return self.op("Mul", name, x, self.op("HardSigmoid", name, y, alpha=1 / 6, beta=0.5))

    def unit(self, name: str, x: str, layer: Unit, size: int) -> str:
        y = self.op("Relu", f"{name}.expand", self.conv_bn(f"{name}.expand", x, layer.expand))
        y = self.shuffle(f"{name}.shuffle", y, layer.expand.conv.out_channels, size)
        y = self.conv_bn(f"{name}.depthwise", y, layer.depthwise)
        if layer.se is not None:
            y = self.squeeze(f"{name}.se", self.op("Relu", f"{name}.depthwise", y), layer.se)
        y = self.conv_bn(f"{name}.project", y, layer.project)
        return self.op("Relu", name, self.op("Add", name, x, y) if layer.residual else y)


def write(network: Digits) -> onnx.ModelProto:
    """The checked ONNX model (opset 17) of a trained network, nothing fused."""
    graph = Writer()
    x = graph.op("Relu", "stem", graph.conv_bn("stem", "image", network.stem))
    x = graph.unit("unit1", x, network.unit1, size=8)
    x = graph.unit("unit2", x, network.unit2, size=4)
    x = graph.unit("unit3", x, network.unit3, size=4)
    x = graph.op("Flatten", "pool", graph.op("GlobalAveragePool", "pool", x), axis=1)
    weight = graph.constant("head.weight", network.head.weight)
    bias = graph.constant("head.bias", network.head.bias)
    graph.op("Gemm", "head", x, weight, bias, transB=1)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "digits", [image], [logits], graph.constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="onnx-deploy examples/digits",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def shifted(images: Tensor) -> Tensor:
    """The same images, each moved by -1, 0 or 1 pixels in both directions, zeros coming in."""
    windows = functional.pad(images[:, 0], (1, 1, 1, 1)).unfold(1, 8, 1).unfold(2, 8, 1)
    rows, columns = torch.randint(0, 3, (2, len(images)))
    return windows[torch.arange(len(images)), rows, columns].unsqueeze(1)


def fit(images: Tensor, labels: Tensor) -> Digits:
    """The network after the last epoch, in evaluation mode: no held-out sample picks it."""
    network = Digits()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        # The last, short batch is left out: its statistics would weigh as much as a full one's.
        order = torch.randperm(len(images))[: len(images) // BATCH * BATCH]
        for batch in order.view(-1, BATCH):
            logits = network(shifted(images[batch]))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        schedule.step()
    return network.eval()


def split() -> list[NDArray[np.generic]]:
    """Training images, held-out images, training labels, held-out labels: stratified, seeded."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    return train_test_split(  # type: ignore[no-any-return]
        images, labels, test_size=TEST_SAMPLES, stratify=labels, random_state=SEED
    )


def main() -> None:
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)  # fixed: the order of a sum depends on it
    calib_images, test_images, calib_labels, test_labels = split()
    network = fit(torch.from_numpy(calib_images), torch.from_numpy(calib_labels))
    model = write(network)
    with torch.no_grad():
        expected = network(torch.from_numpy(test_images)).numpy()
    for batch in (1, 7):
        (found,) = np.asarray(ReferenceEvaluator(model).run(None, {"image": test_images[:batch]}))
        np.testing.assert_allclose(found, expected[:batch], rtol=0, atol=PARITY_ATOL)
    onnx.save(model, HERE / "digits.onnx")
    np.savez_compressed(HERE / "calib.npz", image=calib_images, labels=calib_labels)
    np.savez_compressed(HERE / "test.npz", image=test_images, labels=test_labels)
    parameters = sum(p.numel() for p in network.parameters())
    correct = int((expected.argmax(1) == test_labels).sum())
    print(f"{parameters} parameters; held-out: {correct} of {len(test_labels)} correct")


if __name__ == "__main__":
    main()
