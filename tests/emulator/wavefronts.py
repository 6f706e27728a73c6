"""What a launch asked of shared memory, and how many wavefronts that took."""

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from . import report
from .structures import SharedRequests

if TYPE_CHECKING:
    from .module import Module

KINDS = ("load", "store", "copy", "matrix load", "matrix store")  # enum RequestKind
ROOM = 4096  # places


class Requests(NamedTuple):
    """The requests of shared memory from one place in a kernel's source.

    Attributes
    ----------
    kind : one of KINDS
    place : file:line, and the line that it is inlined at
    bytes : of each lane
    requests : instructions of whole warps
    wavefronts : that they take, of up to 128 bytes
    ideal : that they would take if no two lanes met in a bank
    """

    kind: str
    place: str
    bytes: int
    requests: int
    wavefronts: int
    ideal: int


def read(module: "Module") -> list[Requests]:
    """Read what the last launch counted; places on one line are added up."""
    places = (SharedRequests * ROOM)()
    count = min(ROOM, module.library.emulator_shared_requests(places, ROOM))
    sums: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in places[:count]:
        where = f"{one.site_file.decode()}:{one.site_line}"
        if one.pc:
            where = report.describe_line("", module, one.pc)
        found = sums[KINDS[one.kind], where, one.bytes]
        for i, number in enumerate((one.requests, one.wavefronts, one.ideal)):
            found[i] += number
    return [Requests(*key, *numbers) for key, numbers in sorted(sums.items())]
