// Channel shuffle and depthwise convolution as one OpenVINO operation, on one thread.
//
// The shuffle costs nothing: output channel c reads plane (c % groups) * n + c / groups. A plane is
// first copied into a padded buffer, its rows and columns split by the stride's phase, so that every
// kernel tap is a constant offset and one long loop computes the whole plane, whatever its width.
// INT8 is computed in float: 25 products of 8-bit integers add up exactly there.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
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

struct Geometry {
    size_t in_h, in_w, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, out_h, out_w;
    size_t row() const { return out_w + (kernel_w - 1) / stride_w; }
    size_t rows() const { return out_h + (kernel_h - 1) / stride_h; }
    size_t phase() const { return rows() * row(); }
};

constexpr size_t LANES = 16;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline size_t whole_lanes(size_t n) { return (n + LANES - 1) / LANES * LANES; }

// y[i] = bias + sum of w[t] * x[i + offset[t]], for n rounded up to whole lanes
FOR_EVERY_CPU void add_taps(const float* x, const size_t* offset, const float* w, size_t taps,
                            float bias, float* y, size_t n) {
    for (size_t i = 0; i < n; i += LANES) {
        Lanes sum = Lanes{} + bias;
        for (size_t t = 0; t < taps; ++t) {
            sum += w[t] * *reinterpret_cast<const Lanes*>(x + i + offset[t]);
        }
        *reinterpret_cast<Lanes*>(y + i) = sum;
    }
}

// A stretch of a plane's row and where in the padded buffer it goes.
struct Span {
    size_t from, to, count;
};

// Every row of the plane, once per phase of its columns: buffer[row % stride_h][column % stride_w].
std::vector<Span> spans_of(const Geometry& g) {
    std::vector<Span> spans;
    const size_t last = (g.out_h - 1) * g.stride_h + g.kernel_h;
    const size_t width = (g.out_w - 1) * g.stride_w + g.kernel_w;
    const size_t end = std::min(width, g.pad_left + g.in_w);
    for (size_t row = g.pad_top; row < std::min(last, g.pad_top + g.in_h); ++row) {
        for (size_t phase = 0; phase < g.stride_w; ++phase) {
            // the first column of that phase that the plane covers
            const size_t skipped = (g.pad_left + g.stride_w - 1 - phase) / g.stride_w;
            const size_t first = skipped * g.stride_w + phase;
            if (first < end) {
                const size_t part = (row % g.stride_h) * g.stride_w + phase;
                spans.push_back({(row - g.pad_top) * g.in_w + first - g.pad_left,
                                 part * g.phase() + (row / g.stride_h) * g.row() + skipped,
                                 (end - first - 1) / g.stride_w + 1});
            }
        }
    }
    return spans;
}

// STEP: distance of the elements read, 0 where it isn't known before
template <size_t STEP, typename T>
inline void spread(const std::vector<Span>& spans, size_t step, const T* plane, float* buffer) {
    for (const Span& span : spans) {
        const T* from = plane + span.from;
        float* to = buffer + span.to;
        for (size_t i = 0; i < span.count; ++i) {
            to[i] = static_cast<float>(from[i * (STEP ? STEP : step)]);
        }
    }
}

// How sums become y, one channel at a time.
struct Epilogue {
    const float* w_scale = nullptr;  // with it, w is rounded to integers and y is int8
    float x_scale = 0, y_scale = 0;
    bool relu = false;
};

inline float as_integer(float value) {
    return std::clamp(std::nearbyint(value), -128.0f, 127.0f);
}

template <typename T>
inline void store(const float* sums, float, float, const Epilogue& e, T* y, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        y[i] = static_cast<T>(e.relu && sums[i] < 0 ? 0.0f : sums[i]);
    }
}

inline void store(const float* sums, float factor, float bias, const Epilogue& e, int8_t* y,
                  size_t n) {
    for (size_t i = 0; i < n; ++i) {
        const float real = sums[i] * factor + bias;
        y[i] = static_cast<int8_t>(as_integer((e.relu && real < 0 ? 0.0f : real) / e.y_scale));
    }
}

// T: of x and y; W: of w and bias, float for int8
template <typename T, typename W>
void convolve(const Geometry& g, size_t groups, const Epilogue& e, const ov::TensorVector& inputs,
              ov::Tensor& output) {
    const size_t batch = inputs[0].get_shape()[0], channels = inputs[0].get_shape()[1];
    const size_t taps = g.kernel_h * g.kernel_w;
    const T* x = static_cast<const T*>(inputs[0].data());
    const W* weights = static_cast<const W*>(inputs[1].data());
    const W* biases = inputs.size() > 2 ? static_cast<const W*>(inputs[2].data()) : nullptr;
    T* y = static_cast<T*>(output.data());

    // the last lanes run past the last row's end
    const size_t count = g.out_h * g.row();
    std::vector<float> buffer(g.stride_h * g.stride_w * g.phase() + g.kernel_w + LANES);
    std::vector<float> sums(whole_lanes(count)), w(taps);
    std::vector<size_t> offset(taps);
    const std::vector<Span> spans = spans_of(g);
    for (size_t t = 0; t < taps; ++t) {
        const size_t row = t / g.kernel_w, column = t % g.kernel_w;
        const size_t part = (row % g.stride_h) * g.stride_w + column % g.stride_w;
        offset[t] = part * g.phase() + (row / g.stride_h) * g.row() + column / g.stride_w;
    }
    for (size_t plane = 0; plane < batch * channels; ++plane) {
        const size_t c = plane % channels;
        const size_t source = plane - c + (c % groups) * (channels / groups) + c / groups;
        const T* from = x + source * g.in_h * g.in_w;
        if (g.stride_w == 1) {
            spread<1>(spans, 1, from, buffer.data());
        } else if (g.stride_w == 2) {
            spread<2>(spans, 2, from, buffer.data());
        } else {
            spread<0>(spans, g.stride_w, from, buffer.data());
        }
        std::transform(weights + c * taps, weights + (c + 1) * taps, w.begin(),
                       [](W value) { return static_cast<float>(value); });
        const float bias = biases ? static_cast<float>(biases[c]) : 0.0f;
        const float factor = e.w_scale ? e.x_scale * e.w_scale[c] : 1.0f;
        if (e.w_scale) {
            for (float& value : w) {
                value = as_integer(value / e.w_scale[c]);
            }
        }
        add_taps(buffer.data(), offset.data(), w.data(), taps, e.w_scale ? 0.0f : bias, sums.data(),
                 count);
        for (size_t row = 0; row < g.out_h; ++row, y += g.out_w) {
            store(&sums[row * g.row()], factor, bias, e, y, g.out_w);
        }
    }
}

// x: [N, C, H, W], w: [C, 1, kH, kW], bias: [C] or absent; pads: top, left, bottom, right.
// int8 x: w, bias and w_scale [C] are float32, and x_scale and y_scale say what the integers mean.
class ShuffleDepthwise : public ov::op::Op {
public:
    OPENVINO_OP("ShuffleDepthwise", "onnx_deploy")

    struct Attributes {
        int64_t groups = 1;
        std::vector<int64_t> strides{1, 1};
        std::vector<int64_t> pads{0, 0, 0, 0};
        std::string activation;
        float x_scale = 0, y_scale = 0;
    };

    ShuffleDepthwise() = default;
    ShuffleDepthwise(const ov::OutputVector& inputs, Attributes attributes)
        : Op(inputs), m_attributes(std::move(attributes)) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        const auto& a = m_attributes;
        const auto type = get_input_element_type(0);
        const bool int8 = type == ov::element::i8;
        const size_t count = get_input_size();
        NODE_VALIDATION_CHECK(this, int8 ? count == 4 : count == 2 || count == 3, count,
                              " inputs; takes x, w and perhaps bias, for int8 also w_scale");
        NODE_VALIDATION_CHECK(this, int8 == (a.x_scale > 0) && int8 == (a.y_scale > 0),
                              "x is ", type, ", x_scale is ", a.x_scale, ", y_scale ", a.y_scale,
                              "; int8 has both above 0, no other type has one");
        NODE_VALIDATION_CHECK(this, a.activation.empty() || a.activation == "Relu",
                              "activation = ", a.activation, "; knows Relu, or none");
        const bool strided = a.strides.size() == 2 && a.strides[0] > 0 && a.strides[1] > 0;
        NODE_VALIDATION_CHECK(this, strided && a.pads.size() == 4 &&
                                        *std::min_element(a.pads.begin(), a.pads.end()) >= 0,
                              "takes two strides from 1 up and four pads from 0 up");
        for (size_t i = 1; i < count; ++i) {
            const auto other = get_input_element_type(i);
            NODE_VALIDATION_CHECK(this, other == (int8 ? ov::element::f32 : type), "input ", i,
                                  " is ", other, ", x is ", type);
        }
        set_output_type(0, type, output_shape());
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(
        const ov::OutputVector& inputs) const override {
        return std::make_shared<ShuffleDepthwise>(inputs, m_attributes);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override {
        visitor.on_attribute("groups", m_attributes.groups);
        visitor.on_attribute("strides", m_attributes.strides);
        visitor.on_attribute("pads", m_attributes.pads);
        visitor.on_attribute("activation", m_attributes.activation);
        visitor.on_attribute("x_scale", m_attributes.x_scale);
        visitor.on_attribute("y_scale", m_attributes.y_scale);
        return true;
    }

    bool has_evaluate() const override {
        const auto type = get_input_element_type(0);
        return type == ov::element::f32 || type == ov::element::f16 ||
               type == ov::element::bf16 || type == ov::element::i8;
    }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        const auto &x = inputs[0].get_shape(), &w = inputs[1].get_shape();
        const auto size = [&](size_t i) { return static_cast<size_t>(m_attributes.pads[i]); };
        Geometry g{x[2], x[3], w[2], w[3], static_cast<size_t>(m_attributes.strides[0]),
                   static_cast<size_t>(m_attributes.strides[1]), size(0), size(1), 0, 0};
        g.out_h = (g.in_h + size(0) + size(2) - g.kernel_h) / g.stride_h + 1;
        g.out_w = (g.in_w + size(1) + size(3) - g.kernel_w) / g.stride_w + 1;
        outputs[0].set_shape({x[0], x[1], g.out_h, g.out_w});
        const size_t groups = static_cast<size_t>(m_attributes.groups);
        Epilogue e;
        e.relu = m_attributes.activation == "Relu";
        const auto type = inputs[0].get_element_type();
        if (type == ov::element::f32) {
            convolve<float, float>(g, groups, e, inputs, outputs[0]);
        } else if (type == ov::element::f16) {
            convolve<ov::float16, ov::float16>(g, groups, e, inputs, outputs[0]);
        } else if (type == ov::element::bf16) {
            convolve<ov::bfloat16, ov::bfloat16>(g, groups, e, inputs, outputs[0]);
        } else if (type == ov::element::i8) {
            e.w_scale = static_cast<const float*>(inputs[3].data());
            e.x_scale = m_attributes.x_scale;
            e.y_scale = m_attributes.y_scale;
            convolve<int8_t, float>(g, groups, e, inputs, outputs[0]);
        } else {
            return false;
        }
        return true;
    }

private:
    ov::PartialShape output_shape() const {
        const auto &x = get_input_partial_shape(0), &w = get_input_partial_shape(1);
        if (x.rank().is_dynamic() || w.rank().is_dynamic()) {
            return ov::PartialShape::dynamic(4);
        }
        NODE_VALIDATION_CHECK(this, x.size() == 4 && w.size() == 4 && w[1].compatible(1) &&
                                        w[0].compatible(x[1]),
                              "x: ", x, ", w: ", w, "; they have to be [N,C,H,W] and [C,1,kH,kW]");
        const auto groups = m_attributes.groups;
        NODE_VALIDATION_CHECK(
            this, groups >= 1 && (x[1].is_dynamic() || x[1].get_length() % groups == 0),
            "groups = ", groups, " doesn't divide the channels of x: ", x);
        ov::PartialShape y{x[0], x[1], ov::Dimension(), ov::Dimension()};
        for (size_t axis = 0; axis < 2; ++axis) {
            if (x[axis + 2].is_dynamic() || w[axis + 2].is_dynamic()) {
                continue;
            }
            const auto& pads = m_attributes.pads;
            const auto room = x[axis + 2].get_length() + pads[axis] + pads[axis + 2] -
                              w[axis + 2].get_length();
            NODE_VALIDATION_CHECK(this, room >= 0, "the kernel of w: ", w,
                                  " is larger than the padded x: ", x);
            y[axis + 2] = room / m_attributes.strides[axis] + 1;
        }
        return y;
    }

    Attributes m_attributes;
};

ov::OutputVector from_onnx(const ov::frontend::NodeContext& node) {
    ov::OutputVector inputs;
    for (size_t i = 0; i < node.get_input_size(); ++i) {
        inputs.push_back(node.get_input(static_cast<int>(i)));
    }
    ShuffleDepthwise::Attributes a;
    a.groups = node.get_attribute<int64_t>("groups");
    a.strides = node.get_attribute<std::vector<int64_t>>("strides", a.strides);
    a.pads = node.get_attribute<std::vector<int64_t>>("pads", a.pads);
    a.activation = node.get_attribute<std::string>("activation", a.activation);
    a.x_scale = node.get_attribute<float>("x_scale", a.x_scale);
    a.y_scale = node.get_attribute<float>("y_scale", a.y_scale);
    return std::make_shared<ShuffleDepthwise>(inputs, a)->outputs();
}

}  // namespace

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>(
    {std::make_shared<ov::OpExtension<ShuffleDepthwise>>(),
     std::make_shared<ov::frontend::onnx::ConversionExtension>("ShuffleDepthwise", "onnx_deploy",
                                                               from_onnx)}));
