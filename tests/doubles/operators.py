"""What the ONNX parser of a TensorRT version takes: operators and opsets.

From the parser binaries of 8.5.2.2, 8.6.0 and TensorRT-RTX 1.7.1 (supportsOperator) and, for 10.x
and 11.x, onnx-tensorrt's docs/operators.md; NonMaxSuppression, NonZero and RoiAlign, which the 8.x
binaries only hide, count as taken. Opsets: the same page per version. Between two versions looked
at the older one stands, which refuses too much rather than too little.
"""

from __future__ import annotations

_NEVER = """AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad
    Col2Im
    Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger
    MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional
    OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap
    SoftmaxCrossEntropyLoss SplitToSequence StringConcat StringNormalizer StringSplit
    TfIdfVectorizer Unique"""
# the version that brings an importer
_SINCE = {
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (10, 0): "CastLike DeformConv Gelu Hardmax Mish",
    (10, 14): "Attention RMSNormalization RotaryEmbedding",
    (11, 0): "Swish BlackmanWindow HammingWindow HannWindow STFT",
}
_OPSETS = (((11, 0), 24), ((10, 16), 24), ((10, 0), 20), ((8, 5), 17))


def unsupported(version: str) -> set[str]:
    """Operators of the default domain without an importer in a version such as "8.5.2"."""
    missing = set(_NEVER.split())
    for first, names in _SINCE.items():
        if numbers(version) < first:
            missing |= set(names.split())
    return missing


def newest_opset(version: str) -> int:
    """The newest opset that a version's parser knows."""
    return next(opset for first, opset in _OPSETS if numbers(version) >= first)


def numbers(version: str) -> tuple[int, ...]:
    """Major and minor to compare; TensorRT-RTX 1.7 is as TensorRT 11."""
    if version.startswith("rtx"):
        return (11, 4)
    return tuple(int(part) for part in version.split(".")[:2])
