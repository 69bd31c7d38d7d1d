// The attributes of an op, described once: rows that point into the op's plain struct.
//
// TensorRT's ONNX parser asks a plugin creator for its fields and hands over those that the node
// has: INT and INTS as int32 (later releases may say int64), FLOAT as float32, STRING as characters
// with a closing zero (onnx-tensorrt, loadFields). Listing the fields, reading them, and keeping
// them in an engine all go by the same rows.
#pragma once

#include <NvInfer.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace onnx_deploy {
namespace tensorrt {

struct Attribute {
  char const* name;
  nvinfer1::PluginFieldType type;  // kINT32, kFLOAT32 or kCHAR
  int32_t length;                  // entries; for kCHAR the room, closing zero included
  size_t offset;                   // of the first entry in the op's struct
  bool required;                   // otherwise the struct's own value is the default
};

using Attributes = std::vector<Attribute>;

inline size_t entry_bytes(nvinfer1::PluginFieldType type) {
  return type == nvinfer1::PluginFieldType::kCHAR ? 1 : 4;
}

inline size_t bytes(Attribute const& row) {
  return static_cast<size_t>(row.length) * entry_bytes(row.type);
}

// The fields as a creator announces them (values == nullptr) or as a plugin keeps them. They point
// into `rows` and `values`.
inline std::vector<nvinfer1::PluginField> as_fields(Attributes const& rows, void const* values) {
  std::vector<nvinfer1::PluginField> fields;
  for (Attribute const& row : rows) {
    void const* at = values ? static_cast<char const*>(values) + row.offset : nullptr;
    fields.emplace_back(row.name, at, row.type, row.length);
  }
  return fields;
}

namespace detail {

inline std::string read_text(nvinfer1::PluginField const& field, Attribute const& row, char* into) {
  char const* text = static_cast<char const*>(field.data);
  size_t length = static_cast<size_t>(field.length);
  while (length > 0 && text[length - 1] == '\0') {
    --length;
  }
  if (length >= static_cast<size_t>(row.length)) {
    return "has " + std::to_string(length) + " characters, at most " +
           std::to_string(row.length - 1) + " are known";
  }
  std::memset(into, 0, row.length);
  std::memcpy(into, text, length);
  return "";
}

#if NV_TENSORRT_MAJOR >= 10
inline std::string read_int64(nvinfer1::PluginField const& field, Attribute const& row,
                              char* into) {
  for (int32_t i = 0; i < row.length; ++i) {
    int64_t value = 0;
    std::memcpy(&value, static_cast<char const*>(field.data) + 8 * i, sizeof value);
    if (value < std::numeric_limits<int32_t>::min() ||
        value > std::numeric_limits<int32_t>::max()) {
      return "is " + std::to_string(value) + ", out of the range of int32";
    }
    int32_t const narrow = static_cast<int32_t>(value);
    std::memcpy(into + 4 * i, &narrow, sizeof narrow);
  }
  return "";
}
#endif

// Empty, or what is wrong with the field.
inline std::string read_field(nvinfer1::PluginField const& field, Attribute const& row,
                              char* into) {
  if (!field.data || field.length < 0) {
    return "has no value";
  }
  if (row.type == nvinfer1::PluginFieldType::kCHAR && field.type == row.type) {
    return read_text(field, row, into);
  }
  if (field.length != row.length) {
    return "has " + std::to_string(field.length) + " entries, expected " +
           std::to_string(row.length);
  }
  if (field.type == row.type) {
    std::memcpy(into, field.data, bytes(row));
    return "";
  }
#if NV_TENSORRT_MAJOR >= 10
  if (row.type == nvinfer1::PluginFieldType::kINT32 &&
      field.type == nvinfer1::PluginFieldType::kINT64) {
    return read_int64(field, row, into);
  }
#endif
  return "has field type " + std::to_string(static_cast<int32_t>(field.type)) + ", expected " +
         std::to_string(static_cast<int32_t>(row.type));
}

}  // namespace detail

// Fills `values` (the op's struct, holding its defaults) from the fields. Empty, or what is wrong.
inline std::string read_fields(Attributes const& rows,
                               nvinfer1::PluginFieldCollection const* collection, void* values) {
  if (!collection || collection->nbFields < 0 || (collection->nbFields && !collection->fields)) {
    return "no plugin fields were given";
  }
  std::vector<bool> seen(rows.size(), false);
  for (int32_t i = 0; i < collection->nbFields; ++i) {
    nvinfer1::PluginField const& field = collection->fields[i];
    std::string const name = field.name ? field.name : "";
    size_t at = 0;
    while (at < rows.size() && name != rows[at].name) {
      ++at;
    }
    if (at == rows.size()) {
      return "unknown attribute '" + name + "'";
    }
    char* into = static_cast<char*>(values) + rows[at].offset;
    std::string const problem = detail::read_field(field, rows[at], into);
    if (!problem.empty()) {
      return "attribute '" + name + "' " + problem;
    }
    seen[at] = true;
  }
  for (size_t at = 0; at < rows.size(); ++at) {
    if (rows[at].required && !seen[at]) {
      return std::string("attribute '") + rows[at].name + "' is missing";
    }
  }
  return "";
}

}  // namespace tensorrt
}  // namespace onnx_deploy
