// SePointwise in TensorRT 8.x: loading the library registers it.
#include "tensorrt/v2.h"
#include "trt.h"

namespace {
using Creator = onnx_deploy::tensorrt::CreatorV2<onnx_deploy::tensorrt::SePointwise>;
REGISTER_TENSORRT_PLUGIN(Creator);
}  // namespace
