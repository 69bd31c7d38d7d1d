// Squared ReLU as an OpenVINO operation, in float32.
#include <memory>
#include <vector>

#include "openvino/core/op_extension.hpp"
#include "openvino/frontend/onnx/extension/conversion.hpp"
#include "openvino/op/op.hpp"

namespace {

class SquaredRelu : public ov::op::Op {
public:
    OPENVINO_OP("SquaredRelu", "onnx_deploy")

    SquaredRelu() = default;
    explicit SquaredRelu(const ov::OutputVector& inputs) : Op(inputs) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        set_output_type(0, get_input_element_type(0), get_input_partial_shape(0));
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(
        const ov::OutputVector& inputs) const override {
        return std::make_shared<SquaredRelu>(inputs);
    }

    bool visit_attributes(ov::AttributeVisitor&) override { return true; }

    bool has_evaluate() const override { return get_input_element_type(0) == ov::element::f32; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        outputs[0].set_shape(inputs[0].get_shape());
        const float* x = inputs[0].data<float>();
        float* y = outputs[0].data<float>();
        for (size_t i = 0; i < inputs[0].get_size(); ++i) {
            y[i] = x[i] > 0 ? x[i] * x[i] : 0;
        }
        return true;
    }
};

ov::OutputVector from_onnx(const ov::frontend::NodeContext& node) {
    return std::make_shared<SquaredRelu>(ov::OutputVector{node.get_input(0)})->outputs();
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>(
    {std::make_shared<ov::OpExtension<SquaredRelu>>(),
     std::make_shared<ov::frontend::onnx::ConversionExtension>("SquaredRelu", "onnx_deploy",
                                                               from_onnx)}));
