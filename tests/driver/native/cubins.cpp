// What a cubin says of its kernels.
//
// A cubin is an ELF file. The section .nv.info.<kernel> lists attributes: a format, a number, and
// a value of two bytes or a length with as many bytes behind it (binutils and cuobjdump print
// them by the names below).
#include <elf.h>

#include <cstring>

#include "state.h"

namespace driver {
namespace {

constexpr uint8_t WITH_LENGTH = 4;                                        // EIFMT_SVAL
constexpr uint8_t MAX_THREADS = 0x05, KPARAM_INFO = 0x17, CTA_PER_CLUSTER = 0x3d;  // EIATTR_…
constexpr uint32_t RESERVED_SHARED = 1024;  // bytes that sm_90 and later keep for the system
constexpr int ABI_WITH_WIDE_FLAGS = 8;      // e_ident[EI_ABIVERSION] of CUDA 13

template <typename T>
T read(const char *at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

void read_attributes(const char *at, size_t size, KernelCode *code) {
  const char *end = at + size;
  while (at + 4 <= end) {
    uint8_t format = (uint8_t)at[0], attribute = (uint8_t)at[1];
    uint16_t length = format == WITH_LENGTH ? read<uint16_t>(at + 2) : 0;
    const char *value = at + 4;
    at = value + length;
    if (at > end) return;
    if (attribute == KPARAM_INFO && length == 12) {
      uint16_t index = read<uint16_t>(value + 4), offset = read<uint16_t>(value + 6);
      if (code->parameters.size() <= index) code->parameters.resize(index + 1);
      code->parameters[index] = {offset, read<uint32_t>(value + 8) >> 18};
    } else if (attribute == CTA_PER_CLUSTER && length == 12) {
      for (int i = 0; i < 3; ++i) code->cluster[i] = read<uint32_t>(value + 4 * i);
    } else if (attribute == MAX_THREADS && length == 12) {
      code->max_threads =
          read<uint32_t>(value) * read<uint32_t>(value + 4) * read<uint32_t>(value + 8);
    }
  }
}

}  // namespace

size_t size_of_cubin(const char *image) {
  auto header = read<Elf64_Ehdr>(image);
  size_t end = header.e_shoff + (size_t)header.e_shentsize * header.e_shnum;
  end = std::max(end, (size_t)header.e_phoff + (size_t)header.e_phentsize * header.e_phnum);
  for (int i = 0; i < header.e_shnum; ++i) {
    auto section = read<Elf64_Shdr>(image + header.e_shoff + i * header.e_shentsize);
    if (section.sh_type != SHT_NOBITS)
      end = std::max(end, (size_t)(section.sh_offset + section.sh_size));
  }
  return end;
}

std::string read_cubin(const char *image, size_t size, int *architecture,
                       std::map<std::string, KernelCode> *kernels) {
  if (size < sizeof(Elf64_Ehdr) || memcmp(image, ELFMAG, SELFMAG)) return "it is no ELF file";
  auto header = read<Elf64_Ehdr>(image);
  if (size < size_of_cubin(image)) return "it is cut short";
  bool wide = header.e_ident[EI_ABIVERSION] >= ABI_WITH_WIDE_FLAGS;
  *architecture = (int)(wide ? header.e_flags >> 8 & 0xff : header.e_flags & 0xff);
  auto section = [&](int i) {
    return read<Elf64_Shdr>(image + header.e_shoff + i * header.e_shentsize);
  };
  auto table = section(header.e_shstrndx);
  auto name_of_section = [&](const Elf64_Shdr &one) {
    return std::string(image + table.sh_offset + one.sh_name);
  };
  const std::string text = ".text.", info = ".nv.info.", shared = ".nv.shared.";
  for (int i = 0; i < header.e_shnum; ++i) {
    auto one = section(i);
    std::string name = name_of_section(one);
    if (name.rfind(info, 0) == 0) {
      read_attributes(image + one.sh_offset, one.sh_size, &(*kernels)[name.substr(info.size())]);
    } else if (name.rfind(text, 0) == 0) {
      (*kernels)[name.substr(text.size())].registers = one.sh_info >> 24;
    } else if (name.rfind(shared, 0) == 0) {
      uint32_t reserved = *architecture >= 90 ? RESERVED_SHARED : 0;
      uint32_t bytes = (uint32_t)one.sh_size;
      (*kernels)[name.substr(shared.size())].shared = bytes > reserved ? bytes - reserved : 0;
    }
  }
  kernels->erase("reserved.0");
  return "";
}

}  // namespace driver
