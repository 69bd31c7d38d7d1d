// What an engine keeps of a plugin of the V2 interface: bytes that say what they are.
//
//   "ODPL" | layout version | hash of op name and rows | inputs | bytes of values | values | hash
//
// all unsigned 32-bit in the byte order of the machine: an engine never leaves its kind of device.
// The hash of the rows makes an engine of an older op, with other attributes, unreadable instead
// of misread; the closing hash is over everything before it.
#pragma once

#include "attributes.h"

namespace onnx_deploy {
namespace tensorrt {

constexpr uint32_t kBlobMagic = 0x4c50444fU;  // "ODPL"
constexpr uint32_t kBlobLayout = 1;
constexpr size_t kBlobHeaderBytes = 5 * sizeof(uint32_t);

namespace detail {

// FNV-1a, 32 bits: against damage, not against intent.
inline uint32_t fnv1a(void const* data, size_t size, uint32_t hash = 2166136261U) {
  unsigned char const* at = static_cast<unsigned char const*>(data);
  for (size_t i = 0; i < size; ++i) {
    hash = (hash ^ at[i]) * 16777619U;
  }
  return hash;
}

inline uint32_t hash_of(char const* op, Attributes const& rows) {
  uint32_t hash = fnv1a(op, std::strlen(op) + 1);
  for (Attribute const& row : rows) {
    int32_t const shape[2] = {static_cast<int32_t>(row.type), row.length};
    hash = fnv1a(row.name, std::strlen(row.name) + 1, hash);
    hash = fnv1a(shape, sizeof shape, hash);
  }
  return hash;
}

inline size_t value_bytes(Attributes const& rows) {
  size_t total = 0;
  for (Attribute const& row : rows) {
    total += bytes(row);
  }
  return total;
}

}  // namespace detail

inline size_t blob_bytes(Attributes const& rows) {
  return kBlobHeaderBytes + detail::value_bytes(rows) + sizeof(uint32_t);
}

// Writes exactly blob_bytes(rows) to `into`.
inline void write_blob(char const* op, Attributes const& rows, void const* values, int32_t inputs,
                       void* into) {
  char* const begin = static_cast<char*>(into);
  uint32_t const header[5] = {kBlobMagic, kBlobLayout, detail::hash_of(op, rows),
                              static_cast<uint32_t>(inputs),
                              static_cast<uint32_t>(detail::value_bytes(rows))};
  std::memcpy(begin, header, sizeof header);
  char* at = begin + sizeof header;
  for (Attribute const& row : rows) {
    std::memcpy(at, static_cast<char const*>(values) + row.offset, bytes(row));
    at += bytes(row);
  }
  uint32_t const hash = detail::fnv1a(begin, static_cast<size_t>(at - begin));
  std::memcpy(at, &hash, sizeof hash);
}

// Reads what write_blob wrote; never past `size`. Empty, or what is wrong with the bytes.
inline std::string read_blob(char const* op, Attributes const& rows, void const* data, size_t size,
                             void* values, int32_t* inputs) {
  if (!data || size != blob_bytes(rows)) {
    return "an engine's bytes for it are " + std::to_string(data ? size : 0) + ", expected " +
           std::to_string(blob_bytes(rows));
  }
  char const* const begin = static_cast<char const*>(data);
  uint32_t header[5];
  std::memcpy(header, begin, sizeof header);
  uint32_t hash = 0;
  size_t const hashed = size - sizeof hash;
  std::memcpy(&hash, begin + hashed, sizeof hash);
  if (header[0] != kBlobMagic || hash != detail::fnv1a(begin, hashed)) {
    return "an engine's bytes for it are damaged";
  }
  if (header[1] != kBlobLayout || header[2] != detail::hash_of(op, rows)) {
    return "the engine was built with another version of this plugin; build it again";
  }
  *inputs = static_cast<int32_t>(header[3]);
  char const* at = begin + sizeof header;
  for (Attribute const& row : rows) {
    std::memcpy(static_cast<char*>(values) + row.offset, at, bytes(row));
    at += bytes(row);
  }
  return "";
}

}  // namespace tensorrt
}  // namespace onnx_deploy
