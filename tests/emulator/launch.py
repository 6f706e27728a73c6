"""Runs a kernel on NumPy arrays."""

import ctypes
import functools
import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arguments, build, report, wavefronts
from .arguments import Aligned, Group, Parameter
from .errors import EmulatorError
from .structures import Buffer, Configuration, Failure
from .tensor_maps import TensorMap

if TYPE_CHECKING:
    from .module import Module

POLICIES = {"ascending": 0, "descending": 1, "random": 2}
ARITHMETIC = {"exact": 0, "hopper": 1, "ampere": 2}
STACK_BYTES = 128 << 10
SHARED_LIMITS = {  # bytes of shared memory that a block may have, by architecture
    700: 96 << 10,
    750: 64 << 10,
    **dict.fromkeys((800, 870), 163 << 10),
    **dict.fromkeys((860, 890, 1200, 1210), 99 << 10),
    **dict.fromkeys((900, 1000, 1030, 1100), 227 << 10),
}
MAX_THREADS = 1024
CLUSTER_ARCH, MAX_CLUSTER = 900, 8  # blocks that any device takes
REGISTERS, MAX_REGISTERS = 1 << 16, 255  # of a multiprocessor, and of a thread
ONE_LAUNCH_AT_A_TIME = threading.Lock()  # a launch handles the signals of the process
GUARD_BYTES = 1 << 20  # below the lowest stack
MAP_NORESERVE, PROT_NONE = 0x4000, 0  # Linux's


@dataclass(frozen=True)
class LaunchBounds:
    """What __launch_bounds__ says of a kernel (0: nothing), and __cluster_dims__."""

    threads: int
    blocks: int
    cluster: tuple[int, int, int]

    @property
    def registers(self) -> int:
        """Registers that each thread starts with; 0: unknown."""
        if not self.threads * self.blocks:
            return 0
        return min(REGISTERS // (self.threads * self.blocks), MAX_REGISTERS) // 8 * 8


class Function:
    """One kernel of a module, callable as those of cupy.RawModule are."""

    def __init__(
        self, module: "Module", name: str, entry: int, signature: str, bounds: LaunchBounds
    ) -> None:
        self.name = name
        self.switches = self.accesses = 0  # of the last launch: fiber switches, checked accesses
        self.shared_requests: list[wavefronts.Requests] = []  # of the last launch that counted
        self._module = module
        self._entry = entry
        self._bounds = bounds
        count = signature.count(",")
        self.parameters = arguments.parse_signature(
            signature, module.source.parameters(name, count)
        )

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        policy: str = "ascending",
        seed: int = 0,
        workers: int = 1,
        eager_copies: bool = False,
        count_wavefronts: bool = False,
        arithmetic: str = "exact",
        timeout: int = 120,
    ) -> None:
        """Run a grid to its end; the arrays among `args` then hold what the kernel wrote.

        Parameters
        ----------
        grid, block : one to three extents, x first
        args : NumPy arrays for pointers (None: a null pointer), NumPy scalars of the very type of
            the other parameters, TensorMap for tensor maps, bytes or a void scalar for structures
        shared_mem : bytes of dynamic shared memory
        policy, seed : which thread runs when several could: "ascending", "descending" or "random"
        workers : processes that share the blocks
        eager_copies : asynchronous copies land when they start, instead of when they are awaited
        count_wavefronts : fill `shared_requests`: mode "check" and one worker only
        arithmetic : rounding of tensor cores: "exact", "hopper" or "ampere"
        timeout : seconds after which the launch is an error

        Raises
        ------
        EmulatorError
            if an argument does not fit or the kernel did something wrong; arrays are as before
        """
        if len(args) != len(self.parameters):
            raise EmulatorError(
                f"{self.name} takes {len(self.parameters)} arguments, {len(args)} are given"
            )
        if policy not in POLICIES:
            raise EmulatorError(f"policy is {policy!r}, expected one of {sorted(POLICIES)}")
        if arithmetic not in ARITHMETIC:
            raise EmulatorError(f"arithmetic is {arithmetic!r}, expected one of {list(ARITHMETIC)}")
        if count_wavefronts and (self._module.mode != "check" or workers > 1):
            raise EmulatorError("wavefronts are counted in mode 'check', by one worker")
        configuration = Configuration(
            grid=extents("grid", grid),
            block=extents("block", block),
            cluster=self._bounds.cluster,
            dynamic_bytes=shared_mem,
            schedule=POLICIES[policy],
            seed=seed,
            workers=workers,
            checked=self._module.mode == "check",
            eager_copies=eager_copies,
            count_wavefronts=count_wavefronts,
            timeout_seconds=timeout,
            arithmetic=ARITHMETIC[arithmetic],
            registers=self._bounds.registers,
            stacks=ctypes.addressof(stacks()),
            stack_bytes=STACK_BYTES,
        )
        limit = min(MAX_THREADS, self._bounds.threads or MAX_THREADS)
        if int(np.prod([int(extent) for extent in configuration.block])) > limit:
            raise EmulatorError(f"block is {tuple(block)}, more than {limit} threads")
        self._require_whole_clusters(grid)
        limit = SHARED_LIMITS.get(self._module.arch, build.DYNAMIC_CAPACITY)
        if shared_mem > limit:
            raise EmulatorError(
                f"{shared_mem} bytes of dynamic shared memory are asked for, "
                f"sm_{self._module.arch // 10} has {limit}"
            )
        with ONE_LAUNCH_AT_A_TIME:
            self._launch(configuration, args, f"schedule {policy}")

    def _require_whole_clusters(self, grid: Sequence[int]) -> None:
        cluster = self._bounds.cluster
        size = int(np.prod(cluster))
        if size == 1:
            return
        if self._module.arch < CLUSTER_ARCH:
            raise EmulatorError(f"sm_{self._module.arch // 10} has no clusters")
        if min(cluster) < 1 or size > MAX_CLUSTER:
            raise EmulatorError(f"a cluster has {cluster} blocks, more than {MAX_CLUSTER} or none")
        if any(blocks % of for blocks, of in zip(extents("grid", grid), cluster, strict=True)):
            raise EmulatorError(f"grid is {tuple(grid)}, not whole clusters of {cluster} blocks")

    def _launch(self, configuration: Configuration, args: Sequence[Any], schedule: str) -> None:
        pairs = list(zip(self.parameters, args, strict=True))
        found = [arguments.extent_of(parameter, argument) for parameter, argument in pairs]
        groups = arguments.group_by_memory([extent for extent in found if extent])
        failure = Failure()
        try:
            self._copy_in(groups, configuration)
            self._run(configuration, self._pack(pairs, groups), failure)
            if failure.occurred:
                text = report.describe(failure, self._module, groups)
                raise EmulatorError(f"{self.name}: {text}, {schedule}]")
            self._require_intact(groups)
            for group in groups:
                if group.writable:
                    ctypes.memmove(group.low, group.copy, group.size)
        finally:
            for group in groups:
                if group.copy:
                    self._module.library.emulator_release(group.copy, group.size)

    def _run(self, configuration: Configuration, packed: list[Aligned], failure: Failure) -> None:
        variables = self._module.shared_variables
        configuration.shared_variables = variables
        configuration.shared_variable_count = len(variables)
        counts = (ctypes.c_uint64 * 2)()
        dynamic = self._module.library.emulator_dynamic_address()
        self._module.library.emulator_launch(
            ctypes.c_void_p(self._entry),
            ctypes.byref(configuration),
            (ctypes.c_void_p * len(packed))(*[item.address for item in packed]),
            ctypes.c_void_p(dynamic),
            build.DYNAMIC_CAPACITY if dynamic else 0,
            ctypes.byref(failure),
            counts,
        )
        self.switches, self.accesses = counts
        if configuration.count_wavefronts:
            self.shared_requests = wavefronts.read(self._module)

    def _require_intact(self, groups: list[Group]) -> None:
        library = self._module.library
        spoiled = [g for g in groups if not library.emulator_is_intact(g.copy, g.size)]
        if spoiled:
            names = ", ".join(str(group.extents[0].parameter) for group in spoiled)
            raise EmulatorError(f"{self.name}: something was written just outside of {names}")

    def _copy_in(self, groups: list[Group], configuration: Configuration) -> None:
        buffers = (Buffer * max(1, len(groups)))()
        for buffer, group in zip(buffers, groups, strict=False):
            group.copy = self._module.library.emulator_allocate(group.size, group.low % 16)
            if not group.copy:
                raise EmulatorError(f"no memory for a copy of {group.extents[0].parameter}")
            ctypes.memmove(group.copy, group.low, group.size)
            poison = arguments.poison_of_group(group)
            group.members = arguments.mark_members(group)
            buffer.base, buffer.bytes = group.copy, group.size
            buffer.members = group.members.ctypes.data if group.members is not None else None
            buffer.item_bytes = group.item_bytes
            buffer.read_only = not group.writable
            buffer.uninitialised = poison is not None
            buffer.poison = poison or 0
        configuration.buffers, configuration.buffer_count = buffers, len(groups)

    def _pack(self, pairs: list[tuple[Parameter, Any]], groups: list[Group]) -> list[Aligned]:
        addresses = {
            extent.parameter.index: group.copy + extent.address - group.low
            for group in groups
            for extent in group.extents
        }
        packed = []
        for parameter, argument in pairs:
            address = addresses.get(parameter.index)
            if isinstance(argument, TensorMap) and address is not None:
                content = argument.pack(address, parameter.size)
            elif address is not None:
                content = address.to_bytes(8, "little")
            else:
                content = arguments.pack_scalar(parameter, argument)
            packed.append(Aligned(content))
        return packed


@functools.cache
def stacks() -> ctypes.c_char:
    """Return memory for the stacks of every launch: hundreds of modules must not keep theirs each.

    What is below cannot be touched, so that the lowest of them overflows into unused memory.
    """
    size = GUARD_BYTES + STACK_BYTES * MAX_THREADS * MAX_CLUSTER
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | MAP_NORESERVE)
    guard = ctypes.c_char.from_buffer(memory)
    ctypes.CDLL(None).mprotect(ctypes.byref(guard), ctypes.c_size_t(GUARD_BYTES), PROT_NONE)
    return ctypes.c_char.from_buffer(memory, GUARD_BYTES)


def extents(what: str, values: Sequence[int]) -> ctypes.Array[ctypes.c_uint32]:
    """Return three extents; missing ones are 1."""
    numbers = [int(value) for value in values]
    if not 1 <= len(numbers) <= 3 or min(numbers) < 1:
        raise EmulatorError(f"{what} is {tuple(values)}, expected one to three extents above 0")
    return (ctypes.c_uint32 * 3)(*numbers, *[1] * (3 - len(numbers)))
