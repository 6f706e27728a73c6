"""Run a command on a machine whose GPUs are played: python -m tests.driver [--idle] COMMAND.

With --idle kernels are checked and not carried out, for measurements of the host's time.
"""

import os
import sys
from pathlib import Path

from .library import folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(command: list[str]) -> None:
    """Replace this process by the command's."""
    if command[:1] == ["--idle"]:
        os.environ["PLAYED_DRIVER"] = command.pop(0)
    if not command:
        sys.exit(__doc__)
    paths = [str(HERE / "startup"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    libraries = [str(folder()), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
