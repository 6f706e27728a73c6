// Wavefronts of shared memory: what its 32 banks of 4 bytes deliver or take at once.
#include "wavefronts.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <tuple>
#include <unordered_map>

#include "failures.h"

namespace emulator {

constexpr uint32_t BANKS = 32, WORD_BYTES = 4;
constexpr uint32_t MAX_BYTES = 16;  // of a lane's access, and of a row of a matrix

struct LaneAccess {
  RequestKind kind;
  uint32_t bytes;
  uint64_t address;
  const void* pc;
};

struct Request {
  RequestKind kind;
  uint32_t bytes;  // of each lane
  uint32_t mask;
  uint64_t address[WARP];
};

static std::vector<SharedRequests> counted;
static std::vector<LaneAccess> latest;  // of each thread; 0 bytes: none
static std::vector<std::unordered_map<const void*, uint32_t>> turns;  // accesses so far, by pc
static std::map<std::tuple<uint32_t, const void*, uint32_t, uint32_t>, Request>
    partial_requests;  // by warp, pc, turn and bytes

// Lanes are served in groups that can fill a wavefront: all of them, halves where each moves 8
// bytes, quarters where it moves 16. A load's groups are twice as large where all lanes whose
// numbers differ in bit 0, or all whose numbers differ in bit 1, read the same address.
static uint32_t lanes_in_group(const Request& request) {
  uint32_t lanes = WARP;
  for (uint32_t bytes = request.bytes; bytes > WORD_BYTES; bytes = (bytes + 1) / 2) lanes /= 2;
  if (lanes == WARP || request.kind != RequestKind::LOAD) return lanes;
  for (uint32_t bit : {1u, 2u}) {
    bool same = true;
    for (uint32_t lane = 0; lane < WARP; lane++) {
      const bool both = (request.mask >> lane & 1) && (request.mask >> (lane ^ bit) & 1);
      same = same && (!both || request.address[lane] == request.address[lane ^ bit]);
    }
    if (same) return 2 * lanes;
  }
  return lanes;
}

// As many as there are different words in the bank that has the most of them.
static uint32_t wavefronts_of_group(const Request& request, uint32_t first, uint32_t lanes) {
  std::set<uint64_t> words[BANKS];
  size_t most = 0;
  for (uint32_t lane = first; lane < first + lanes; lane++) {
    if (!(request.mask >> lane & 1)) continue;
    const uint64_t end = request.address[lane] + request.bytes;
    for (uint64_t word = request.address[lane] / WORD_BYTES; word * WORD_BYTES < end; word++) {
      auto& of_bank = words[word % BANKS];
      of_bank.insert(word);
      most = std::max(most, of_bank.size());
    }
  }
  return uint32_t(most);
}

static SharedRequests& requests_at(RequestKind kind, uint32_t bytes, const void* pc) {
  SharedRequests place{};
  place.kind = kind;
  place.bytes = bytes;
  if (pc) {
    place.pc = address_of(pc) - address_of(module_image.begin);
  } else {
    snprintf(place.site_file, sizeof place.site_file, "%s", file_name(current->site.file));
    place.site_line = uint32_t(current->site.line);
  }
  for (SharedRequests& known : counted) {
    if (known.kind == kind && known.bytes == bytes && known.pc == place.pc &&
        known.site_line == place.site_line && !strcmp(known.site_file, place.site_file)) {
      return known;
    }
  }
  return counted.emplace_back(place);
}

static void count_request(const Request& request, const void* pc) {
  SharedRequests& sums = requests_at(request.kind, request.bytes, pc);
  const uint32_t lanes = lanes_in_group(request);
  sums.requests++;
  for (uint32_t first = 0; first < WARP; first += lanes) {
    const uint32_t wavefronts = wavefronts_of_group(request, first, lanes);
    sums.wavefronts += wavefronts;
    sums.ideal += wavefronts > 0;
  }
}

static void join_request(uint32_t thread, const LaneAccess& access) {
  const uint32_t turn = turns[thread][access.pc]++;
  const auto key = std::make_tuple(thread / WARP, access.pc, turn, access.bytes);
  const Request fresh{access.kind, access.bytes, 0, {}};
  Request& request = partial_requests.try_emplace(key, fresh).first->second;
  request.mask |= lane_bit(thread % WARP);
  request.address[thread % WARP] = access.address;
  if (request.mask != 0xffffffffu) return;
  count_request(request, access.pc);
  partial_requests.erase(key);
}

// g++ takes packs apart: another instruction's access of the bytes that follow, within one aligned
// piece, belongs to the access before it.
static bool continues(const LaneAccess& before, const LaneAccess& now) {
  const uint32_t bytes = before.bytes + now.bytes;
  if (!before.bytes || before.kind != now.kind || before.pc == now.pc) return false;
  if (bytes > MAX_BYTES) return false;
  uint32_t aligned = 1;
  while (aligned < bytes) aligned *= 2;
  return now.address == before.address + before.bytes && before.address % aligned == 0;
}

void count_access(RequestKind kind, const void* address, uint32_t bytes, const void* pc) {
  if (!launch->count_wavefronts || !shared_memory.holds(address_of(address))) return;
  for (; bytes > MAX_BYTES; bytes -= MAX_BYTES) {
    count_access(kind, address, MAX_BYTES, pc);
    address = static_cast<const char*>(address) + MAX_BYTES;
  }
  const LaneAccess now{kind, bytes, address_of(address), pc};
  if (kind == RequestKind::COPY) return join_request(current->id, now);
  LaneAccess& before = latest[current->id];
  if (continues(before, now)) {
    before.bytes += bytes;
    return;
  }
  if (before.bytes) join_request(current->id, before);
  before = now;
}

void count_matrices(RequestKind kind, void* const* rows, uint32_t count) {
  if (!launch->count_wavefronts) return;
  Request request{kind, MAX_BYTES, 0, {}};
  for (uint32_t lane = 0; lane < count; lane++) {
    request.mask |= lane_bit(lane);
    request.address[lane] = address_of(rows[lane]);
  }
  count_request(request, nullptr);
}

void count_partial_requests() {
  for (uint32_t i = 0; i < latest.size(); i++) {
    if (latest[i].bytes) join_request(i, latest[i]);
    latest[i].bytes = 0;
    turns[i].clear();
  }
  for (const auto& [key, request] : partial_requests) count_request(request, std::get<1>(key));
  partial_requests.clear();
}

void forget_requests() {
  counted.clear();
  partial_requests.clear();
  const size_t threads_that_count = launch->count_wavefronts ? cluster_threads : 0;
  latest.assign(threads_that_count, LaneAccess{});
  turns.assign(threads_that_count, {});
}

}  // namespace emulator

// Gives the number of places; fills in those for which there is room.
EMULATOR_API uint64_t emulator_shared_requests(emulator::SharedRequests* out, uint64_t room) {
  const auto& counted = emulator::counted;
  std::copy_n(counted.begin(), std::min<uint64_t>(room, counted.size()), out);
  return counted.size();
}
