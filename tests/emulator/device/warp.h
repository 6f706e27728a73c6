// Shuffles, votes and __syncwarp.
#pragma once
#include "builtins.h"

namespace emulator {

constexpr int OWN_VALUE = -1;

template <class T>
struct Shuffle {
  T given, received;
  int source;  // lane, or OWN_VALUE
};

template <class T>
EMULATOR_UNCHECKED void shuffle_lanes(void** operations, uint32_t mask) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    auto* mine = static_cast<Shuffle<T>*>(operations[lane]);
    if (mine->source == OWN_VALUE) {
      mine->received = mine->given;
      continue;
    }
    if (!(mask >> mine->source & 1)) {
      fail("shuffle: lane %d reads lane %d, which is not in the mask %08x", lane, mine->source,
           mask);
    }
    mine->received = static_cast<Shuffle<T>*>(operations[mine->source])->given;
  }
}

template <class T>
EMULATOR_UNCHECKED T shuffle(uint32_t mask, T value, int source, Site site) {
  Shuffle<T> operation{value, value, source};
  warp_collective(Collective::SHUFFLE, mask, &operation, shuffle_lanes<T>, site);
  return operation.received;
}

struct Vote {
  bool predicate;
  uint32_t ballot;
};

EMULATOR_UNCHECKED inline void vote_lanes(void** operations, uint32_t mask) {
  uint32_t ballot = 0;
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    ballot |= uint32_t(static_cast<Vote*>(operations[lane])->predicate) << lane;
  }
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    static_cast<Vote*>(operations[__builtin_ctz(rest)])->ballot = ballot;
  }
}

EMULATOR_UNCHECKED inline uint32_t vote(uint32_t mask, bool predicate, Site site) {
  Vote operation{predicate, 0};
  warp_collective(Collective::VOTE, mask, &operation, vote_lanes, site);
  return operation.ballot;
}

// First lane of the group of `width` lanes that the calling lane belongs to.
inline int group_start(int width) { return int(lane_index()) & ~(width - 1); }

}  // namespace emulator

static inline void __syncwarp(uint32_t mask = 0xffffffffu,
                              emulator::Site site = emulator::Site::here()) {
  emulator::warp_collective(emulator::Collective::SYNCWARP, mask, nullptr, nullptr, site);
}

template <class T>
static inline T __shfl_sync(uint32_t mask, T value, int source, int width = 32,
                            emulator::Site site = emulator::Site::here()) {
  const int lane = emulator::group_start(width) | (source & (width - 1));
  return emulator::shuffle(mask, value, lane, site);
}
template <class T>
static inline T __shfl_xor_sync(uint32_t mask, T value, int lane_mask, int width = 32,
                                emulator::Site site = emulator::Site::here()) {
  const int source = int(emulator::lane_index()) ^ lane_mask;
  const bool inside = source < emulator::group_start(width) + width;
  return emulator::shuffle(mask, value, inside ? source : emulator::OWN_VALUE, site);
}
template <class T>
static inline T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                                 emulator::Site site = emulator::Site::here()) {
  const int source = int(emulator::lane_index() + delta);
  const bool inside = source < emulator::group_start(width) + width;
  return emulator::shuffle(mask, value, inside ? source : emulator::OWN_VALUE, site);
}
template <class T>
static inline T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32,
                               emulator::Site site = emulator::Site::here()) {
  const int source = int(emulator::lane_index()) - int(delta);
  const bool inside = source >= emulator::group_start(width);
  return emulator::shuffle(mask, value, inside ? source : emulator::OWN_VALUE, site);
}

static inline uint32_t __ballot_sync(uint32_t mask, int predicate,
                                     emulator::Site site = emulator::Site::here()) {
  return emulator::vote(mask, predicate != 0, site);
}
static inline int __any_sync(uint32_t mask, int predicate,
                             emulator::Site site = emulator::Site::here()) {
  return emulator::vote(mask, predicate != 0, site) != 0;
}
static inline int __all_sync(uint32_t mask, int predicate,
                             emulator::Site site = emulator::Site::here()) {
  return emulator::vote(mask, predicate == 0, site) == 0;
}
