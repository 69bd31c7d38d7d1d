// ChannelShuffle in TensorRT 10 and 11: loading the library registers it.
#include "tensorrt/v3.h"
#include "trt.h"

namespace {
using Creator = onnx_deploy::tensorrt::CreatorV3<onnx_deploy::tensorrt::ChannelShuffle>;
REGISTER_TENSORRT_PLUGIN(Creator);
}  // namespace
