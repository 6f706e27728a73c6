// Atomic read-modify-write functions, for any type of 1 to 16 bytes.
#pragma once
#include "builtins.h"

namespace emulator {

template <class T, class Next>
struct ReadModifyWrite {
  Next* next;
  T old;
};

template <class T, class Next>
EMULATOR_UNCHECKED void apply(void* address, void* argument) {
  auto* operation = static_cast<ReadModifyWrite<T, Next>*>(argument);
  operation->old = *static_cast<T*>(address);
  *static_cast<T*>(address) = (*operation->next)(operation->old);
}

template <class T, class Next>
EMULATOR_UNCHECKED T read_modify_write(T* address, Next next) {
  ReadModifyWrite<T, Next> operation{&next, T()};
  atomic(address, sizeof(T), apply<T, Next>, &operation);
  return operation.old;
}

template <class T>
struct Identity {
  using Type = T;
};
template <class T>
using Exactly = typename Identity<T>::Type;  // keeps a parameter out of template deduction

}  // namespace emulator

template <class T>
static inline T atomicAdd(T* address, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address, [=](T old) { return T(old + value); });
}
template <class T>
static inline T atomicMax(T* address, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address, [=](T old) { return old > value ? old : value; });
}
template <class T>
static inline T atomicMin(T* address, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address, [=](T old) { return old < value ? old : value; });
}
template <class T>
static inline T atomicAnd(T* address, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address, [=](T old) { return T(old & value); });
}
template <class T>
static inline T atomicOr(T* address, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address, [=](T old) { return T(old | value); });
}
template <class T>
static inline T atomicExch(T* address, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address, [=](T) { return value; });
}
template <class T>
static inline T atomicCAS(T* address, emulator::Exactly<T> expected, emulator::Exactly<T> value) {
  return emulator::read_modify_write(address,
                                     [=](T old) { return old == expected ? value : old; });
}
