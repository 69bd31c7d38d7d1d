// The TensorRT glue of all plugins, driven by hand: with TensorRT's headers, without its library
// and without CUDA's. Prints what the glue answers, one line per question; answers.txt has the
// answers. GLUE is 2 or 3.
#include "stand_ins.h"

namespace {

PluginField ints(char const* name, std::vector<int32_t> const& values) {
  return PluginField(name, values.data(), PluginFieldType::kINT32,
                     static_cast<int32_t>(values.size()));
}
PluginField number(char const* name, float const& value) {
  return PluginField(name, &value, PluginFieldType::kFLOAT32, 1);
}
PluginField text(char const* name, char const* value) {
  return PluginField(name, value, PluginFieldType::kCHAR,
                     static_cast<int32_t>(std::strlen(value)) + 1);
}

void shuffle_depthwise() {
  std::vector<int32_t> const three{3}, twos{2, 2}, mixed{1, 2}, pads{1, 0, 2, 1}, none{0};
  float const x_scale = 0.5F, y_scale = 0.25F;
  auto const floats = create<ShuffleDepthwise>(
      {ints("groups", three), ints("strides", twos), ints("pads", pads),
       text("activation", "Relu")});
  ask_shape(*floats, {{2, 12, 11, 9}, {12, 1, 5, 5}});
  ask_shape(*floats, {{2, 12, kFree, 9}, {12, 1, 5, 5}, {12}});
  ask_shape(*floats, {{2, 13, 11, 9}, {13, 1, 5, 5}});
  ask_shape(*floats, {{2, 12, 11, 9}, {12, 1, 4, 4}});
  ask_shape(*floats, {{2, 12, 11}, {12, 1, 5, 5}});
  ask_shape(*floats, {{2, 12, 11, 9}});
  ask_types(*floats, {{kF, kF, kF},
                      {kH, kH, kH, kH},
                      {kH, kH, kH, kF, kH},
                      {kI, kF, kF, kI},
                      {kI, kI, kF, kF, kI},
                      {kI, kI, kF, kI},
                      {kI, kH, kF, kI},
                      {kF, kF, kH},
                      {kF, kH, kF},
                      {kH, kH, kF, kH}});
  run(*floats, {{kH, {2, 12, 11, 9}, -1.F}, {kH, {12, 1, 5, 5}, -1.F}},
      {kH, {2, 12, 5, 3}, -1.F});
  run(*floats, {{kI, {2, 12, 11, 9}, 0.125F}, {kF, {12, 1, 3, 3}, -1.F}, {kF, {12}, -1.F}},
      {kI, {2, 12, 6, 4}, 2.F});
  ask_shape(*floats, {{2, 12, 11, 9}, {12, 1, 3, 3}});
  auto const again = reread<ShuffleDepthwise>(*floats);
  run(*again, {{kF, {1, 6, 4, 3}, -1.F}, {kF, {6, 1, 3, 3}, -1.F}, {kF, {6}, -1.F}},
      {kF, {1, 6, 2, 2}, -1.F});
  auto const int8 = create<ShuffleDepthwise>(
      {ints("groups", three), number("x_scale", x_scale), number("y_scale", y_scale)});
  run(*reread<ShuffleDepthwise>(*int8),
      {{kI, {1, 6, 4, 3}, -1.F}, {kI, {6, 1, 3, 3}, -1.F}, {kF, {6}, -1.F}, {kF, {6}, -1.F}},
      {kI, {1, 6, 2, 1}, -1.F});
  auto const unscaled = create<ShuffleDepthwise>({ints("groups", three)});
  run(*unscaled, {{kI, {1, 6, 4, 3}, -1.F}, {kF, {6, 1, 3, 3}, -1.F}}, {kI, {1, 6, 2, 1}, -1.F});
  run(*unscaled, {{kF, {1, 6, 4, 3}, -1.F}, {kF, {3, 1, 3, 3}, -1.F}}, {kF, {1, 6, 2, 1}, -1.F});
  run(*unscaled, {{kF, {1, 6, 4, 3}, -1.F}}, {kF, {1, 6, 2, 1}, -1.F});
  code_to_return = 9;
  run(*unscaled, {{kF, {1, 6, 4, 3}, -1.F}, {kF, {6, 1, 3, 3}, -1.F}}, {kF, {1, 6, 2, 1}, -1.F});
  code_to_return = 0;

  ask_create<ShuffleDepthwise>({});
  ask_create<ShuffleDepthwise>({ints("groups", none)});
  ask_create<ShuffleDepthwise>({ints("groups", twos)});
  ask_create<ShuffleDepthwise>({ints("strides", mixed)});
  ask_create<ShuffleDepthwise>({ints("strides", three)});
  ask_create<ShuffleDepthwise>({ints("pads", twos)});
  ask_create<ShuffleDepthwise>({ints("group", three)});
  ask_create<ShuffleDepthwise>({number("groups", x_scale)});
  ask_create<ShuffleDepthwise>({text("activation", "Clip")});
  ask_create<ShuffleDepthwise>({text("activation", "HardSwish")});
  ask_create<ShuffleDepthwise>({number("x_scale", x_scale)});
  ask_create<ShuffleDepthwise>({PluginField("groups", nullptr, PluginFieldType::kINT32, 1)});
}

void se_pointwise() {
  auto const plugin = create<SePointwise>({});
  ask_shape(*plugin, {{2, 6, 5, 7}, {2, 6, 1, 1}, {10, 6, 1, 1}});
  ask_shape(*plugin, {{kFree, 6, 5, 7}, {kFree, 6, 1, 1}, {10, 6, 1, 1}, {10}});
  ask_shape(*plugin, {{2, 6, 5, 7}, {2, 6, 1, 1}, {10, 5, 1, 1}});
  ask_shape(*plugin, {{2, 6, 5, 7}, {2, 6}, {10, 6, 1, 1}});
  ask_types(*plugin, {{kF, kF, kF, kF},
                      {kH, kH, kH, kH, kH},
                      {kI, kF, kF, kF, kI},
                      {kI, kF, kI, kF, kF, kI},
                      {kI, kF, kI, kF, kI},
                      {kI, kI, kF, kF, kI},
                      {kH, kF, kH, kH}});
  run(*plugin, {{kI, {2, 6, 5, 7}, 0.5F}, {kF, {2, 6, 1, 1}, -1.F}, {kF, {10, 6, 1, 1}, -1.F}},
      {kI, {2, 10, 5, 7}, 4.F});
  run(*reread<SePointwise>(*plugin),
      {{kH, {2, 6, 5, 7}, -1.F}, {kH, {2, 6, 1, 1}, -1.F}, {kH, {10, 6, 1, 1}, -1.F},
       {kH, {10}, -1.F}},
      {kH, {2, 10, 5, 7}, -1.F});
  run(*plugin, {{kF, {2, 6, 5, 7}, -1.F}, {kF, {1, 6, 1, 1}, -1.F}, {kF, {10, 6, 1, 1}, -1.F}},
      {kF, {2, 10, 5, 7}, -1.F});
  run(*plugin, {{kF, {2, 6, 5, 7}, -1.F}, {kF, {2, 6, 1, 1}, -1.F}, {kF, {10, 3, 1, 1}, -1.F}},
      {kF, {2, 10, 5, 7}, -1.F});
}

void channel_shuffle() {
  std::vector<int32_t> const three{3}, negative{-3};
  ask_create<ChannelShuffle>({});
  ask_create<ChannelShuffle>({ints("groups", negative)});
  auto const plugin = create<ChannelShuffle>({ints("groups", three)});
  ask_shape(*plugin, {{2, 12, 5, 7}});
  ask_shape(*plugin, {{2, kFree, 5}});
  ask_shape(*plugin, {{2, 13, 5, 7}});
  ask_shape(*plugin, {{12}});
  ask_types(*plugin, {{kF, kF}, {kH, kH}, {kI, kI}, {kF, kH}, {kI, kF}});
  run(*reread<ChannelShuffle>(*plugin), {{kH, {2, 12, 5, 7}, -1.F}}, {kH, {2, 12, 5, 7}, -1.F});
  run(*plugin, {{kI, {2, 12, 5}, 0.5F}}, {kI, {2, 12, 5}, 0.5F});
  run(*plugin, {{kI, {2, 12, 5}, 0.5F}}, {kI, {2, 12, 5}, 0.25F});
}

#if NV_TENSORRT_MAJOR >= 10
void wide_integers() {
  std::vector<int64_t> const wide{4}, too_wide{int64_t{1} << 40};
  ask_create<ShuffleDepthwise>({PluginField("groups", wide.data(), PluginFieldType::kINT64, 1)});
  ask_create<ShuffleDepthwise>(
      {PluginField("groups", too_wide.data(), PluginFieldType::kINT64, 1)});
}
#endif

#if GLUE == 2
// An op of the same size whose second attribute had another name once.
struct Older : SePointwise {
  static onnx_deploy::tensorrt::Attributes const& attributes() {
    static auto rows = SePointwise::attributes();
    rows[1].name = "z_scale";
    return rows;
  }
};

void another_version() {
  auto const older = create<Older>({});
  std::vector<char> blob(older->getSerializationSize());
  older->serialize(blob.data());
  Creator<SePointwise> creator;
  say(creator.deserializePlugin("", blob.data(), blob.size()) ? "taken" : "refused");
}

// Counts which damaged blobs are taken for a plugin: every byte changed, and every shorter length.
template <typename Op>
void damage() {
  std::vector<int32_t> const three{3};
  auto const plugin = create<Op>({ints("groups", three)});
  std::vector<char> blob(plugin->getSerializationSize());
  plugin->serialize(blob.data());
  Creator<Op> creator;
  int taken = 0;
  for (size_t at = 0; at < blob.size(); ++at) {
    std::vector<char> changed = blob;
    changed[at] = static_cast<char>(changed[at] ^ 4);
    taken += creator.deserializePlugin("", changed.data(), changed.size()) != nullptr;
    std::vector<char> const shorter(blob.begin(), blob.begin() + static_cast<std::ptrdiff_t>(at));
    taken += creator.deserializePlugin("", shorter.data(), shorter.size()) != nullptr;
  }
  taken += creator.deserializePlugin("", nullptr, blob.size()) != nullptr;
  logged.clear();
  std::printf("damaged %zu taken %d\n", 2 * blob.size() + 1, taken);
  Creator<SePointwise> other;
  say(other.deserializePlugin("", blob.data(), blob.size()) ? "taken" : "refused");
}
#endif

}  // namespace

int main() {
  shuffle_depthwise();
  se_pointwise();
  channel_shuffle();
#if NV_TENSORRT_MAJOR >= 10
  wide_integers();
#endif
#if GLUE == 2
  damage<ShuffleDepthwise>();
  damage<ChannelShuffle>();
  another_version();
#endif
  return 0;
}
