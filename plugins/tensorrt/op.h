// What an op tells the TensorRT glue, so that one description serves both plugin interfaces.
//
// A struct `Op` has
//
//   struct Values                      the attributes: plain ints, floats and characters
//   static char const* name()          the ONNX operator
//   static Attributes const& attributes()             rows over Values
//   static std::string problem(Values const&)         empty, or why the values can't be
//   static bool takes(int32_t inputs)                 numbers of inputs there may be
//   static bool supports(int32_t pos, PluginTensorDesc const* io, int32_t inputs)
//       may tensor `pos` have its type and format, given those before it (outputs come last)?
//   static DataType output_type(DataType const* inputs)
//   static std::string shape(Values const&, DimsExprs const* in, IExprBuilder&, DimsExprs* out)
//   static void configure(Values&, PluginTensorDesc const* in, PluginTensorDesc const& out)
//       takes what only the built network knows: the scales of INT8 tensors
//   static std::string enqueue(Values const&, Call const&)
//
// One output each. A plugin is found by the ONNX node's operator name, version "1", namespace "".
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <limits>
#include <string>
#include <type_traits>

#include "attributes.h"
#include "report.h"

namespace onnx_deploy {
namespace tensorrt {

constexpr int32_t kMostTensors = 8;

struct Call {
  nvinfer1::PluginTensorDesc const* in;
  int32_t inputs;
  nvinfer1::PluginTensorDesc const* out;
  void const* const* in_data;
  void* out_data;
  cudaStream_t stream;
};

inline bool is_linear(nvinfer1::PluginTensorDesc const& tensor) {
  return tensor.format == nvinfer1::TensorFormat::kLINEAR;
}

// float32, float16 or int8: what every kernel here has
inline bool is_known(nvinfer1::DataType type) {
  return type == nvinfer1::DataType::kFLOAT || type == nvinfer1::DataType::kHALF ||
         type == nvinfer1::DataType::kINT8;
}

// Scale of an INT8 tensor: TensorRT's where it has one (implicit quantization), else the
// attribute's. TensorRT gives -1 for tensors without.
inline float scale_of(nvinfer1::PluginTensorDesc const& tensor, float attribute) {
  return tensor.type == nvinfer1::DataType::kINT8 && tensor.scale > 0.F ? tensor.scale : attribute;
}

// Attributes x_scale and y_scale: both or neither, above 0; 0 where the node doesn't have them.
inline std::string scales_problem(float x_scale, float y_scale) {
  bool const neither = x_scale == 0.F && y_scale == 0.F;
  float const most = std::numeric_limits<float>::max();
  bool const both = x_scale > 0.F && y_scale > 0.F && x_scale <= most && y_scale <= most;
  return neither || both ? ""
                         : "x_scale is " + std::to_string(x_scale) + " and y_scale " +
                               std::to_string(y_scale) + ", expected both above 0 or neither";
}

// The value of a dimension that is known while building, else -1.
inline int64_t constant(nvinfer1::IDimensionExpr const* dimension) {
  return dimension && dimension->isConstant() ? dimension->getConstantValue() : -1;
}

// What a launcher's return code means; empty for 0. `refusal` is its own reason for -1.
inline std::string failure(int code, char const* refusal) {
  if (code == 0) {
    return "";
  }
  if (code < 0) {
    return refusal ? refusal : "its kernel refused the call";
  }
  return std::string("CUDA error ") + std::to_string(code) + ": " +
         cudaGetErrorString(static_cast<cudaError_t>(code));
}

template <typename Op>
std::string read_values(nvinfer1::PluginFieldCollection const* fields,
                        typename Op::Values* values) {
  static_assert(std::is_standard_layout<typename Op::Values>::value &&
                    std::is_trivially_copyable<typename Op::Values>::value,
                "rows point into Values, and engines keep its bytes");
  std::string const problem = read_fields(Op::attributes(), fields, values);
  return problem.empty() ? Op::problem(*values) : problem;
}

inline std::string wrong_count(int32_t inputs) {
  return "it can't have " + std::to_string(inputs) + " inputs";
}

template <typename Op>
int32_t run(typename Op::Values const& values, Call const& call) {
  std::string const problem =
      Op::takes(call.inputs) ? Op::enqueue(values, call) : wrong_count(call.inputs);
  if (!problem.empty()) {
    report(Op::name(), problem);
    return 1;
  }
  return 0;
}

}  // namespace tensorrt
}  // namespace onnx_deploy
