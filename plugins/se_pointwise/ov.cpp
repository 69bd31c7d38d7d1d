// A map scaled per channel and a 1x1 convolution as one OpenVINO operation, on one thread.
//
// The scale goes into the weights, M * C products per sample instead of C * H * W. Then y = w x:
// columns are taken sixteen at a time into a packed panel, rows of w six at a time, so that the
// sums stay in registers.
#include <algorithm>
#include <memory>
#include <vector>

#include "openvino/core/op_extension.hpp"
#include "openvino/frontend/onnx/extension/conversion.hpp"
#include "openvino/op/op.hpp"

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
// compiled once per instruction set; the loader takes the best one the CPU has
#define FOR_EVERY_CPU \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EVERY_CPU
#endif

namespace {

constexpr size_t COLUMNS = 16;
constexpr size_t ROWS = 6;
typedef float Columns __attribute__((vector_size(COLUMNS * sizeof(float)), aligned(4), may_alias));

// y[r][16] = bias[r] + sum over c of w[c][r] * x[c][16]
FOR_EVERY_CPU void multiply_block(const float* w, const float* x, const float* bias,
                                  size_t channels, float* y) {
    Columns sums[ROWS];
    for (size_t r = 0; r < ROWS; ++r) {
        sums[r] = Columns{} + bias[r];
    }
    for (size_t c = 0; c < channels; ++c) {
        const Columns column = *reinterpret_cast<const Columns*>(x + c * COLUMNS);
#pragma GCC unroll 6
        for (size_t r = 0; r < ROWS; ++r) {
            sums[r] += w[c * ROWS + r] * column;
        }
    }
    for (size_t r = 0; r < ROWS; ++r) {
        *reinterpret_cast<Columns*>(y + r * COLUMNS) = sums[r];
    }
}

struct Sizes {
    size_t in, out, pixels;
    size_t blocks() const { return (out + ROWS - 1) / ROWS; }
};

// w * scale as blocks of [C][6]; rows after the last stay zero
template <typename T>
void pack_weights(const Sizes& s, const T* w, const T* scale, float* packed) {
    for (size_t row = 0; row < s.out; ++row) {
        float* to = packed + row / ROWS * ROWS * s.in + row % ROWS;
        for (size_t c = 0; c < s.in; ++c) {
            to[c * ROWS] = static_cast<float>(w[row * s.in + c]) * static_cast<float>(scale[c]);
        }
    }
}

template <typename T>
void multiply(const Sizes& s, const T* x, const float* weights, const float* bias, T* y) {
    std::vector<float> panel(s.in * COLUMNS), sums(ROWS * COLUMNS);
    for (size_t first = 0; first < s.pixels; first += COLUMNS) {
        const size_t width = std::min(COLUMNS, s.pixels - first);
        for (size_t c = 0; c < s.in; ++c) {
            std::transform(x + c * s.pixels + first, x + c * s.pixels + first + width,
                           &panel[c * COLUMNS], [](T v) { return static_cast<float>(v); });
        }
        for (size_t block = 0; block < s.blocks(); ++block) {
            multiply_block(weights + block * ROWS * s.in, panel.data(), bias + block * ROWS, s.in,
                           sums.data());
            for (size_t row = block * ROWS; row < std::min(s.out, (block + 1) * ROWS); ++row) {
                const float* from = &sums[row % ROWS * COLUMNS];
                std::transform(from, from + width, y + row * s.pixels + first,
                               [](float v) { return static_cast<T>(v); });
            }
        }
    }
}

template <typename T>
void run(const ov::TensorVector& inputs, ov::Tensor& output) {
    const auto& shape = inputs[0].get_shape();
    const Sizes s{shape[1], inputs[2].get_shape()[0], shape[2] * shape[3]};
    const T* x = static_cast<const T*>(inputs[0].data());
    const T* scale = static_cast<const T*>(inputs[1].data());
    const T* w = static_cast<const T*>(inputs[2].data());
    T* y = static_cast<T*>(output.data());

    std::vector<float> packed(s.blocks() * ROWS * s.in), bias(s.blocks() * ROWS);
    if (inputs.size() > 3) {
        const T* given = static_cast<const T*>(inputs[3].data());
        std::transform(given, given + s.out, bias.begin(),
                       [](T v) { return static_cast<float>(v); });
    }
    for (size_t n = 0; n < shape[0]; ++n) {
        pack_weights(s, w, scale + n * s.in, packed.data());
        multiply(s, x + n * s.in * s.pixels, packed.data(), bias.data(), y + n * s.out * s.pixels);
    }
}

// x: [N, C, H, W], scale: [N, C, 1, 1], w: [M, C, 1, 1], bias: [M] or absent
class SePointwise : public ov::op::Op {
public:
    OPENVINO_OP("SePointwise", "onnx_deploy")

    SePointwise() = default;
    explicit SePointwise(const ov::OutputVector& inputs) : Op(inputs) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        NODE_VALIDATION_CHECK(this, get_input_size() == 3 || get_input_size() == 4,
                              get_input_size(), " inputs; takes x, scale, w and perhaps bias");
        for (size_t i = 1; i < get_input_size(); ++i) {
            NODE_VALIDATION_CHECK(this, get_input_element_type(i) == get_input_element_type(0),
                                  "input ", i, " is ", get_input_element_type(i), ", x is ",
                                  get_input_element_type(0));
        }
        const auto &x = get_input_partial_shape(0), &scale = get_input_partial_shape(1),
                   &w = get_input_partial_shape(2);
        auto y = ov::PartialShape::dynamic(4);
        if (x.rank().is_static() && scale.rank().is_static() && w.rank().is_static()) {
            const bool fits = x.size() == 4 && w.size() == 4 && w[1].compatible(x[1]) &&
                              scale.compatible(ov::PartialShape{x[0], x[1], 1, 1}) &&
                              w[2].compatible(1) && w[3].compatible(1);
            NODE_VALIDATION_CHECK(this, fits, "x: ", x, ", scale: ", scale, ", w: ", w,
                                  "; they have to be [N,C,H,W], [N,C,1,1] and [M,C,1,1]");
            y = {x[0], w[0], x[2], x[3]};
        }
        set_output_type(0, get_input_element_type(0), y);
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(
        const ov::OutputVector& inputs) const override {
        return std::make_shared<SePointwise>(inputs);
    }

    bool visit_attributes(ov::AttributeVisitor&) override { return true; }

    bool has_evaluate() const override {
        const auto type = get_input_element_type(0);
        return type == ov::element::f32 || type == ov::element::f16 || type == ov::element::bf16;
    }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto& x = inputs[0].get_shape();
        outputs[0].set_shape({x[0], inputs[2].get_shape()[0], x[2], x[3]});
        const auto type = inputs[0].get_element_type();
        if (type == ov::element::f32) {
            run<float>(inputs, outputs[0]);
        } else if (type == ov::element::f16) {
            run<ov::float16>(inputs, outputs[0]);
        } else if (type == ov::element::bf16) {
            run<ov::bfloat16>(inputs, outputs[0]);
        } else {
            return false;
        }
        return true;
    }
};

ov::OutputVector from_onnx(const ov::frontend::NodeContext& node) {
    ov::OutputVector inputs;
    for (size_t i = 0; i < node.get_input_size(); ++i) {
        inputs.push_back(node.get_input(static_cast<int>(i)));
    }
    return std::make_shared<SePointwise>(inputs)->outputs();
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>(
    {std::make_shared<ov::OpExtension<SePointwise>>(),
     std::make_shared<ov::frontend::onnx::ConversionExtension>("SePointwise", "onnx_deploy",
                                                               from_onnx)}));
