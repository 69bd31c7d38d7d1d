// TensorRT 8.5 and 8.6: an op as IPluginV2DynamicExt. Still there in 10 and 11, deprecated.
#pragma once

#include <new>

#include "blob.h"
#include "op.h"

namespace onnx_deploy {
namespace tensorrt {

template <typename Op>
class PluginV2 final : public nvinfer1::IPluginV2DynamicExt {
 public:
  using Values = typename Op::Values;

  PluginV2(Values const& values, int32_t inputs) : values_(values), inputs_(inputs) {}

  char const* getPluginType() const noexcept override { return Op::name(); }
  char const* getPluginVersion() const noexcept override { return "1"; }
  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t initialize() noexcept override { return 0; }
  void terminate() noexcept override {}
  void destroy() noexcept override { delete this; }
  void setPluginNamespace(char const* name) noexcept override { namespace_ = name ? name : ""; }
  char const* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

  size_t getSerializationSize() const noexcept override { return blob_bytes(Op::attributes()); }
  void serialize(void* into) const noexcept override {
    write_blob(Op::name(), Op::attributes(), &values_, inputs_, into);
  }

  nvinfer1::IPluginV2DynamicExt* clone() const noexcept override {
    PluginV2* copy = new (std::nothrow) PluginV2(values_, inputs_);
    if (copy) {
      copy->namespace_ = namespace_;
    }
    return copy;
  }

  nvinfer1::DataType getOutputDataType(int32_t, nvinfer1::DataType const* in,
                                       int32_t) const noexcept override {
    return Op::output_type(in);
  }

  // A shape that can't be has no dimensions: the interface knows no other way to refuse.
  nvinfer1::DimsExprs getOutputDimensions(int32_t, nvinfer1::DimsExprs const* in, int32_t inputs,
                                          nvinfer1::IExprBuilder& build) noexcept override {
    nvinfer1::DimsExprs out{};
    std::string const problem = Op::takes(inputs) ? Op::shape(values_, in, build, &out)
                                                  : wrong_count(inputs);
    if (!problem.empty()) {
      report(Op::name(), problem);
      return nvinfer1::DimsExprs{};
    }
    return out;
  }

  bool supportsFormatCombination(int32_t pos, nvinfer1::PluginTensorDesc const* io, int32_t inputs,
                                 int32_t outputs) noexcept override {
    return outputs == 1 && Op::takes(inputs) && Op::supports(pos, io, inputs);
  }

  void configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t inputs,
                       nvinfer1::DynamicPluginTensorDesc const* out, int32_t) noexcept override {
    inputs_ = inputs;
    if (Op::takes(inputs)) {
      nvinfer1::PluginTensorDesc plain[kMostTensors] = {};
      for (int32_t i = 0; i < inputs && i < kMostTensors; ++i) {
        plain[i] = in[i].desc;
      }
      Op::configure(values_, plain, out[0].desc);
    }
  }

  size_t getWorkspaceSize(nvinfer1::PluginTensorDesc const*, int32_t,
                          nvinfer1::PluginTensorDesc const*, int32_t) const noexcept override {
    return 0;
  }

  int32_t enqueue(nvinfer1::PluginTensorDesc const* in, nvinfer1::PluginTensorDesc const* out,
                  void const* const* in_data, void* const* out_data, void*,
                  cudaStream_t stream) noexcept override {
    return run<Op>(values_, Call{in, inputs_, out, in_data, out_data[0], stream});
  }

 private:
  Values values_;
  int32_t inputs_;  // enqueue isn't told how many there are
  std::string namespace_;
};

template <typename Op>
class CreatorV2 final : public nvinfer1::IPluginCreator {
 public:
  CreatorV2() : fields_(as_fields(Op::attributes(), nullptr)) {
    collection_.nbFields = static_cast<int32_t>(fields_.size());
    collection_.fields = fields_.data();
  }

  char const* getPluginName() const noexcept override { return Op::name(); }
  char const* getPluginVersion() const noexcept override { return "1"; }
  nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }
  void setPluginNamespace(char const* name) noexcept override { namespace_ = name ? name : ""; }
  char const* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

  nvinfer1::IPluginV2* createPlugin(
      char const*, nvinfer1::PluginFieldCollection const* fields) noexcept override {
    typename Op::Values values;
    return made(read_values<Op>(fields, &values), values, 0);
  }

  nvinfer1::IPluginV2* deserializePlugin(char const*, void const* data,
                                         size_t size) noexcept override {
    typename Op::Values values;
    int32_t inputs = 0;
    std::string problem = read_blob(Op::name(), Op::attributes(), data, size, &values, &inputs);
    if (problem.empty()) {
      problem = Op::problem(values);
    }
    return made(problem, values, inputs);
  }

 private:
  nvinfer1::IPluginV2* made(std::string const& problem, typename Op::Values const& values,
                            int32_t inputs) const {
    if (!problem.empty()) {
      report(Op::name(), problem);
      return nullptr;
    }
    auto* plugin = new (std::nothrow) PluginV2<Op>(values, inputs);
    if (plugin) {
      plugin->setPluginNamespace(namespace_.c_str());
    }
    return plugin;
  }

  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
  std::string namespace_;
};

}  // namespace tensorrt
}  // namespace onnx_deploy
