// Streams and events: what waits for what, and in which order it is done.
//
// An operation is done when something needs it: a synchronisation, a query, a copy to the host.
// Then everything that it comes after is done first, and nothing else. So work that no stream or
// event orders before a result has not been done when the result is read.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>

#include "state.h"

namespace driver {

std::mutex state;
std::mutex execution;
thread_local bool within_work = false;
Policy policy = Policy::late;

namespace {

std::mt19937_64 order;
std::set<Stream *> streams;
std::set<Event *> events;

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

Stream *default_stream(int device) {
  Stream *&stream = devices[device].legacy;
  if (!stream) {
    stream = new Stream{device};
    streams.insert(stream);
  }
  return stream;
}

// The stream that stands for the thread where a thread has one of its own.
Stream *stream_of_thread(int device) {
  thread_local std::map<int, Stream *> own;
  Stream *&stream = own[device];
  if (!stream) {
    stream = new Stream{device};
    streams.insert(stream);
  }
  return stream;
}

Stream *find_locked(uint64_t handle) {
  if (handle == 0 || handle == LEGACY) return default_stream(current_device());
  if (handle == PER_THREAD) return stream_of_thread(current_device());
  auto found = streams.find((Stream *)handle);
  return found == streams.end() || (*found)->destroyed ? nullptr : *found;
}

Event *find_event(uint64_t handle) {
  auto found = events.find((Event *)handle);
  return found == events.end() ? nullptr : *found;
}

void need(std::vector<OperationPtr> &after, const OperationPtr &operation) {
  if (operation && operation->progress != Operation::DONE) after.push_back(operation);
}

bool blocks(const Stream &stream) { return !(stream.flags & 1); }

OperationPtr append(Stream &stream, const char *what, Work work, std::vector<OperationPtr> after) {
  auto operation = std::make_shared<Operation>();
  operation->what = what;
  operation->device = stream.device;
  operation->work = std::move(work);
  need(after, stream.last);
  Stream *legacy = default_stream(stream.device);
  if (&stream == legacy) {  // it waits for all streams that block, and they for it
    for (Stream *other : streams)
      if (other->device == stream.device && blocks(*other)) need(after, other->last);
  } else if (blocks(stream)) {
    need(after, legacy->last);
  }
  operation->after = std::move(after);
  stream.last = operation;
  return operation;
}

// Which of the operations that must be done before comes first; nullptr where all are done.
OperationPtr next_before(Operation &operation) {
  auto &after = operation.after;
  auto waits = [](const OperationPtr &one) { return one->progress == Operation::WAITING; };
  after.erase(std::remove_if(after.begin(), after.end(), [&](auto &one) { return !waits(one); }),
              after.end());
  if (after.empty()) return nullptr;
  if (policy == Policy::random) return after[order() % after.size()];
  return *std::max_element(after.begin(), after.end(),
                           [](auto &one, auto &other) { return one->number < other->number; });
}

int run(Operation &operation) {
  int &failure = devices[operation.device].failure;
  int failed = failure || !operation.work ? failure : operation.work();
  operation.work = nullptr;
  if (failed && !failure) failure = failed;
  return failed;
}

// The default stream waits for all that block, which cannot be where one of them is captured.
int forbidden_by_blocking_capture(const Stream &stream) {
  if (&stream != default_stream(stream.device)) return SUCCESS;
  for (Stream *other : streams)
    if (other->capture && other->device == stream.device && blocks(*other))
      return invalidate(*other->capture, CAPTURE_IMPLICIT,
                        "the default stream is used, and waits for one that is captured");
  return SUCCESS;
}

int in_use_elsewhere(const Stream *stream, const char *call) {
  if (!stream) return refuse(INVALID_HANDLE, "%s: there is no such stream", call);
  if (stream->device != current_device())
    return refuse(INVALID_HANDLE, "%s: the stream belongs to device %d, current is device %d", call,
                  stream->device, current_device());
  return SUCCESS;
}

}  // namespace

uint64_t next_number() {
  static std::atomic<uint64_t> numbers{0};
  return ++numbers;
}

void seed_order(uint64_t seed) { order.seed(seed); }

Stream *find_stream(uint64_t handle) {
  Guard guard(state);
  return find_locked(handle);
}

int create_stream(unsigned flags, int priority, uint64_t *handle) {
  Guard guard(state);
  auto *stream = new Stream{current_device(), flags, priority};
  streams.insert(stream);
  *handle = (uint64_t)stream;
  return SUCCESS;
}

int destroy_stream(uint64_t handle) {
  Guard guard(state);
  if (handle <= PER_THREAD) return refuse(INVALID_HANDLE, "a default stream cannot be destroyed");
  Stream *stream = find_locked(handle);
  if (!stream) return refuse(INVALID_HANDLE, "streamDestroy: twice");
  stream->destroyed = true;  // the memory stays, so that no later stream has its handle
  return SUCCESS;
}

int submit(uint64_t handle, const char *what, Work work, OperationPtr *operation) {
  OperationPtr made;
  {
    Guard guard(state);
    Stream *stream = find_locked(handle);
    if (int failed = in_use_elsewhere(stream, what)) return failed;
    if (stream->capture) return add_node(*stream, what, std::move(work));
    if (int failed = forbidden_by_blocking_capture(*stream)) return failed;
    made = append(*stream, what, std::move(work), {});
  }
  if (operation) *operation = made;
  return policy == Policy::eager ? complete(made) : SUCCESS;
}

int complete(const OperationPtr &target) {
  if (within_work) return refuse(NOT_SUPPORTED, "work waits for work");
  std::unique_lock<std::mutex> alone(execution);
  std::vector<OperationPtr> stack{target};
  while (!stack.empty()) {
    OperationPtr operation = stack.back();
    {
      Guard guard(state);
      if (operation->progress != Operation::WAITING) {
        stack.pop_back();
        continue;
      }
      if (OperationPtr before = next_before(*operation)) {
        stack.push_back(before);
        continue;
      }
      operation->progress = Operation::RUNNING;
    }
    within_work = true;
    run(*operation);
    within_work = false;
    Guard guard(state);
    operation->progress = Operation::DONE;
    operation->finished = now();
    stack.pop_back();
  }
  alone.unlock();
  release_later();
  return devices[target->device].failure;
}

int synchronize_stream(uint64_t handle) {
  OperationPtr last;
  int device = 0;
  {
    Guard guard(state);
    Stream *stream = find_locked(handle);
    if (!stream) return refuse(INVALID_HANDLE, "streamSynchronize: there is no such stream");
    if (stream->capture)
      return invalidate(*stream->capture, CAPTURE_UNSUPPORTED, "its stream is synchronized");
    if (int failed = forbidden_by_blocking_capture(*stream)) return failed;
    device = stream->device;
    last = stream->last;
    if (stream == default_stream(device)) last = append(*stream, "synchronize", nullptr, {});
  }
  if (last)
    if (int failed = complete(last)) return failed;
  return devices[device].failure;
}

int query_stream(uint64_t handle) {
  OperationPtr last;
  {
    Guard guard(state);
    Stream *stream = find_locked(handle);
    if (!stream) return refuse(INVALID_HANDLE, "streamQuery: there is no such stream");
    if (stream->capture)
      return invalidate(*stream->capture, CAPTURE_UNSUPPORTED, "its stream is queried");
    if (int failed = forbidden_by_blocking_capture(*stream)) return failed;
    last = stream->last;
    if (!last || last->progress == Operation::DONE) return SUCCESS;
  }
  int failed = complete(last);  // so that the next call does not return it again
  return failed ? failed : NOT_READY;
}

int synchronize_device() {
  std::vector<OperationPtr> all;
  int device = current_device();
  if (int failed = forbidden_on_device("the device is synchronized", device)) return failed;
  {
    Guard guard(state);
    for (Stream *stream : streams)
      if (stream->device == device) need(all, stream->last);
    if (policy == Policy::random) std::shuffle(all.begin(), all.end(), order);
  }
  for (auto &operation : all)
    if (int failed = complete(operation)) return failed;
  return devices[device].failure;
}

int create_event(unsigned flags, uint64_t *handle) {
  Guard guard(state);
  auto *event = new Event{current_device(), flags};
  events.insert(event);
  *handle = (uint64_t)event;
  return SUCCESS;
}

int destroy_event(uint64_t handle) {
  Guard guard(state);
  if (!events.erase((Event *)handle)) return refuse(INVALID_HANDLE, "eventDestroy: twice");
  return SUCCESS;
}

int record_event(uint64_t handle, uint64_t where) {
  Guard guard(state);
  Event *event = find_event(handle);
  Stream *stream = find_locked(where);
  if (!event) return refuse(INVALID_HANDLE, "eventRecord: there is no such event");
  if (!stream) return refuse(INVALID_HANDLE, "eventRecord: there is no such stream");
  if (event->device != stream->device)
    return refuse(INVALID_HANDLE, "eventRecord: the event is of device %d, the stream of %d",
                  event->device, stream->device);
  event->capture = stream->capture;
  if (stream->capture) {
    event->frontier = stream->frontier;
    event->mark = nullptr;
    return stream->capture->invalid ? CAPTURE_INVALIDATED : SUCCESS;
  }
  if (int failed = forbidden_by_blocking_capture(*stream)) return failed;
  event->mark = append(*stream, "event", nullptr, {});
  return SUCCESS;
}

int wait_event(uint64_t where, uint64_t handle) {
  Guard guard(state);
  Event *event = find_event(handle);
  Stream *stream = find_locked(where);
  if (!event) return refuse(INVALID_HANDLE, "streamWaitEvent: there is no such event");
  if (!stream) return refuse(INVALID_HANDLE, "streamWaitEvent: there is no such stream");
  if (event->capture && event->capture->ended)
    return refuse(INVALID_VALUE, "streamWaitEvent: the event is of a capture that has ended");
  if (event->capture) {
    if (stream->capture && stream->capture != event->capture)
      return invalidate(*stream->capture, CAPTURE_MERGE, "an event of another capture");
    stream->capture = event->capture;
    event->capture->streams.insert(stream);
    for (int node : event->frontier)
      if (!std::count(stream->frontier.begin(), stream->frontier.end(), node))
        stream->frontier.push_back(node);
    return SUCCESS;
  }
  if (stream->capture && event->mark)
    return invalidate(*stream->capture, CAPTURE_ISOLATION,
                      "it waits for an event that was recorded outside of it");
  if (event->mark) append(*stream, "wait", nullptr, {event->mark});
  return SUCCESS;
}

int synchronize_event(uint64_t handle) {
  OperationPtr mark;
  {
    Guard guard(state);
    Event *event = find_event(handle);
    if (!event) return refuse(INVALID_HANDLE, "eventSynchronize: there is no such event");
    if (event->capture)
      return invalidate(*event->capture, CAPTURED_EVENT, "one of its events is synchronized");
    mark = event->mark;
  }
  return mark ? complete(mark) : SUCCESS;
}

int query_event(uint64_t handle) {
  OperationPtr mark;
  {
    Guard guard(state);
    Event *event = find_event(handle);
    if (!event) return refuse(INVALID_HANDLE, "eventQuery: there is no such event");
    if (event->capture)
      return invalidate(*event->capture, CAPTURED_EVENT, "one of its events is queried");
    mark = event->mark;
  }
  if (int failed = forbidden_by_captures("a query of an event")) return failed;
  {
    Guard guard(state);
    if (!mark || mark->progress == Operation::DONE) return SUCCESS;
  }
  int failed = complete(mark);
  return failed ? failed : NOT_READY;
}

int elapsed(uint64_t before, uint64_t after, float *milliseconds) {
  Guard guard(state);
  Event *first = find_event(before), *last = find_event(after);
  if (!first || !last || !first->mark || !last->mark)
    return refuse(INVALID_HANDLE, "eventElapsedTime: an event was never recorded");
  if ((first->flags | last->flags) & 2)
    return refuse(INVALID_HANDLE, "eventElapsedTime: an event has no time");
  if (first->mark->progress != Operation::DONE || last->mark->progress != Operation::DONE)
    return NOT_READY;
  *milliseconds = (float)(1e3 * (last->mark->finished - first->mark->finished)) + 1e-6f;
  return SUCCESS;
}

}  // namespace driver
