// The channel shuffle as an OpenVINO operation: whole planes are copied, so any element type will do.
//
// One folder makes one library: c++ -shared ov.cpp with the headers of the openvino wheel.
#include <cstring>
#include <memory>
#include <vector>

#include "openvino/core/op_extension.hpp"
#include "openvino/frontend/onnx/extension/conversion.hpp"
#include "openvino/op/op.hpp"

namespace {

// x: [N, C, ...]; groups has to divide C
class ChannelShuffle : public ov::op::Op {
public:
    OPENVINO_OP("ChannelShuffle", "onnx_deploy")

    ChannelShuffle() = default;
    ChannelShuffle(const ov::OutputVector& inputs, int64_t groups)
        : Op(inputs), m_groups(groups) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        const auto& x = get_input_partial_shape(0);
        NODE_VALIDATION_CHECK(this, get_input_size() == 1, get_input_size(), " inputs; takes x");
        NODE_VALIDATION_CHECK(this, x.rank().is_dynamic() || x.size() >= 2,
                              "x has rank ", x.rank(), "; it has to be [N, C, ...]");
        const bool known = x.rank().is_static() && x[1].is_static();
        NODE_VALIDATION_CHECK(
            this, m_groups >= 1 && (!known || x[1].get_length() % m_groups == 0),
            "groups = ", m_groups, " doesn't divide the channels of x: ", x);
        set_output_type(0, get_input_element_type(0), x);
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(
        const ov::OutputVector& inputs) const override {
        return std::make_shared<ChannelShuffle>(inputs, m_groups);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("groups", m_groups);
        return true;
    }

    bool has_evaluate() const override { return get_input_element_type(0).bitwidth() >= 8; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto& shape = inputs[0].get_shape();
        outputs[0].set_shape(shape);
        const size_t channels = shape[1], per_group = channels / static_cast<size_t>(m_groups);
        const size_t planes = shape[0] * channels;
        if (planes == 0 || inputs[0].get_size() == 0) {
            return true;
        }
        const size_t bytes = inputs[0].get_byte_size() / planes;
        const auto* from = static_cast<const char*>(inputs[0].data());
        auto* to = static_cast<char*>(outputs[0].data());
        for (size_t plane = 0; plane < planes; ++plane) {
            const size_t c = plane % channels, groups = static_cast<size_t>(m_groups);
            const size_t source = plane - c + (c % groups) * per_group + c / groups;
            std::memcpy(to + plane * bytes, from + source * bytes, bytes);
        }
        return true;
    }

private:
    int64_t m_groups = 1;
};

ov::OutputVector from_onnx(const ov::frontend::NodeContext& node) {
    const ov::OutputVector inputs{node.get_input(0)};
    return std::make_shared<ChannelShuffle>(inputs, node.get_attribute<int64_t>("groups"))
        ->outputs();
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>(
    {std::make_shared<ov::OpExtension<ChannelShuffle>>(),
     std::make_shared<ov::frontend::onnx::ConversionExtension>("ChannelShuffle", "onnx_deploy",
                                                               from_onnx)}));
