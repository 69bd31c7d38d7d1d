// What one launch of ChannelShuffle needs to know: plain C++14, no vendor type, no CUDA.
#ifndef ONNX_DEPLOY_CHANNEL_SHUFFLE_PARAMS_H
#define ONNX_DEPLOY_CHANNEL_SHUFFLE_PARAMS_H

struct ChannelShuffleParams {
  int element_bytes;  // 1, 2 or 4: the kernel moves bytes and reads none of them as a number
  int batch;
  int channels;
  int groups;     // divides channels
  int positions;  // elements of one channel's map, H * W
};

#ifndef __CUDACC_RTC__  // NVRTC compiles for the device alone
// Why no kernel takes these, or null when one does.
inline char const* refusal(ChannelShuffleParams const& p) {
  if (p.element_bytes != 1 && p.element_bytes != 2 && p.element_bytes != 4)
    return "an element is none of 1, 2, 4 bytes";
  if (p.batch < 1 || p.channels < 1 || p.positions < 1) return "x has an empty dimension";
  if (p.groups < 1 || p.channels % p.groups != 0) return "groups doesn't divide the channels";
  return nullptr;
}
#endif

#endif
