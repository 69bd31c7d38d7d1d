// A line in TensorRT's log: what a plugin observed, and in which op.
#pragma once

#include <NvInfer.h>

#include <cstdio>
#include <string>

namespace onnx_deploy {
namespace tensorrt {

// To the logger of the process's builder or runtime; to stderr as long as there is none.
inline void report(char const* op, std::string const& problem) {
  std::string const line = std::string("onnx_deploy.") + op + ": " + problem;
  if (nvinfer1::ILogger* logger = getLogger()) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, line.c_str());
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

}  // namespace tensorrt
}  // namespace onnx_deploy
