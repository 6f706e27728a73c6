"""Predict the speed of the products from their machine code.

    python -m bench.model [--update | --tile 64]

Compiles the main kernels with NVRTC and disassembles them: no GPU is needed, nothing is measured.
docs/performance.md says what the tables mean and what they rest on.
"""

import argparse
import sys
from collections.abc import Sequence

from bench.model import tables
from gpugrad.planning.configurations import FFMA


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; give its exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--update", action="store_true", help=f"write {tables.DOCUMENT.name} anew")
    sides = [one.BLOCK_N for one in FFMA["float32"]]
    parser.add_argument("--tile", type=int, choices=sides, help="only main loops, with such tiles")
    chosen = parser.parse_args(argv)
    if chosen.tile:
        print(tables.table(tables.LOOPS, tables.loops((chosen.tile,))))
    elif chosen.update:
        document = tables.DOCUMENT.read_text(encoding="utf-8")
        tables.DOCUMENT.write_text(tables.placed(document, tables.generated()), encoding="utf-8")
    else:
        print(tables.generated())
    return 0


if __name__ == "__main__":
    sys.exit(main())
