// Captures of streams, and the graphs that come of them.
#include <algorithm>

#include "state.h"

namespace driver {
namespace {

std::set<Capture *> captures;  // those in progress
std::map<uint64_t, std::shared_ptr<Graph>> graphs;
uint64_t next_capture = 1;
const char *MODES[] = {"global", "thread-local", "relaxed"};

uint64_t keep(std::shared_ptr<Graph> graph) {
  uint64_t handle = (uint64_t)graph.get();
  graphs[handle] = std::move(graph);
  return handle;
}

bool is_joined(const Graph &graph, const Stream &origin, const Stream &other) {
  std::vector<bool> before(graph.nodes.size(), false);
  std::vector<int> stack = origin.frontier;
  while (!stack.empty()) {
    int node = stack.back();
    stack.pop_back();
    if (before[node]) continue;
    before[node] = true;
    stack.insert(stack.end(), graph.nodes[node].after.begin(), graph.nodes[node].after.end());
  }
  return std::all_of(other.frontier.begin(), other.frontier.end(),
                     [&](int node) { return before[node]; });
}

}  // namespace

int invalidate(Capture &capture, int status, const char *why) {
  capture.invalid = true;
  return refuse(status, "a capture is invalid: %s", why);
}

int forbidden_by_captures(const char *call) {
  Guard guard(state);
  for (Capture *capture : captures) {
    bool concerned = capture->mode == 0 ||
                     (capture->mode == 1 && capture->thread == std::this_thread::get_id());
    if (!concerned) continue;
    capture->invalid = true;
    return refuse(CAPTURE_UNSUPPORTED, "%s while a stream is captured in %s mode", call,
                  MODES[capture->mode]);
  }
  return SUCCESS;
}

int forbidden_on_device(const char *call, int device) {
  Guard guard(state);
  for (Capture *capture : captures)
    if (capture->origin->device == device) return invalidate(*capture, CAPTURE_UNSUPPORTED, call);
  return SUCCESS;
}

int add_node(Stream &stream, const char *what, Work work) {
  Capture &capture = *stream.capture;
  if (capture.invalid) return CAPTURE_INVALIDATED;
  auto &nodes = capture.graph->nodes;
  nodes.push_back({what, stream.device, std::move(work), stream.frontier});
  stream.frontier = {(int)nodes.size() - 1};
  return SUCCESS;
}

int begin_capture(uint64_t handle, int mode) {
  if (mode < 0 || mode > 2) return refuse(INVALID_VALUE, "there is no capture mode %d", mode);
  Stream *stream = find_stream(handle);
  Guard guard(state);
  if (!stream) return refuse(INVALID_HANDLE, "streamBeginCapture: there is no such stream");
  if (handle == 0 || handle == LEGACY)
    return refuse(CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
  if (stream->capture) return refuse(ILLEGAL_STATE, "the stream is captured already");
  auto capture = std::make_shared<Capture>();
  capture->number = next_capture++;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->origin = stream;
  capture->streams = {stream};
  capture->graph = std::make_shared<Graph>();
  captures.insert(capture.get());
  stream->capture = capture;
  stream->frontier.clear();
  return SUCCESS;
}

int end_capture(uint64_t handle, uint64_t *result) {
  *result = 0;
  Stream *stream = find_stream(handle);
  Guard guard(state);
  if (!stream || !stream->capture)
    return refuse(ILLEGAL_STATE, "streamEndCapture: the stream is not captured");
  auto capture = stream->capture;
  if (capture->origin != stream)
    return refuse(CAPTURE_UNMATCHED, "the capture did not begin in this stream");
  if (capture->mode != 2 && capture->thread != std::this_thread::get_id()) {
    capture->invalid = true;
    return refuse(CAPTURE_WRONG_THREAD, "the capture began in another thread");
  }
  bool joined = true;
  for (Stream *other : capture->streams) {
    joined = joined && is_joined(*capture->graph, *stream, *other);
    other->capture = nullptr;
  }
  captures.erase(capture.get());
  capture->ended = true;
  if (capture->invalid) return CAPTURE_INVALIDATED;
  if (!joined) return refuse(CAPTURE_UNJOINED, "a stream of the capture was not joined");
  *result = keep(capture->graph);
  return SUCCESS;
}

void abandon_captures() {
  Guard guard(state);
  for (Capture *capture : std::set<Capture *>(captures)) {
    auto kept = capture->origin->capture;  // its streams are all that hold it
    for (Stream *stream : std::set<Stream *>(capture->streams)) stream->capture = nullptr;
    capture->ended = true;
  }
  captures.clear();
}

int capture_of(uint64_t handle, int *status, uint64_t *number) {
  *status = 0;
  *number = 0;
  Stream *stream = find_stream(handle);
  Guard guard(state);
  if (!stream) return refuse(INVALID_HANDLE, "there is no such stream");
  if (stream->capture) {
    *status = stream->capture->invalid ? 2 : 1;
    *number = stream->capture->number;
  }
  return SUCCESS;
}

int instantiate(uint64_t handle, uint64_t *executable) {
  Guard guard(state);
  auto found = graphs.find(handle);
  if (found == graphs.end()) return refuse(INVALID_VALUE, "there is no such graph");
  *executable = keep(std::make_shared<Graph>(Graph{found->second->nodes, nullptr}));
  return SUCCESS;
}

int launch_graph(uint64_t handle, uint64_t where) {
  std::shared_ptr<Graph> graph;
  OperationPtr first, last;
  {
    Guard guard(state);
    auto found = graphs.find(handle);
    if (found == graphs.end()) return refuse(INVALID_VALUE, "there is no such executable graph");
    graph = found->second;
  }
  Stream *stream = find_stream(where);
  if (stream && stream->capture) return refuse(NOT_SUPPORTED, "a graph within a graph");
  if (int failed = submit(where, "graph begins", nullptr, &first)) return failed;
  {
    Guard guard(state);
    if (graph->last && graph->last->progress != Operation::DONE)
      first->after.push_back(graph->last);  // a graph does not run beside itself
    std::vector<OperationPtr> made;
    for (const Node &node : graph->nodes) {
      auto operation = std::make_shared<Operation>();
      operation->what = node.what;
      operation->device = node.device;
      operation->work = node.work;
      operation->after = {first};
      for (int before : node.after) operation->after.push_back(made[before]);
      made.push_back(operation);
    }
    last = std::make_shared<Operation>();
    last->what = "graph ends";
    last->device = first->device;
    last->after = made;
    last->after.push_back(first);
    stream->last = graph->last = last;
  }
  return policy == Policy::eager ? complete(last) : SUCCESS;
}

int destroy_graph(uint64_t handle) {
  Guard guard(state);
  if (!graphs.erase(handle)) return refuse(INVALID_VALUE, "there is no such graph");
  return SUCCESS;
}

}  // namespace driver
