"""Run a command on a machine whose GPUs are played.

python -m tests.driver python -m bench.on_gpu --quick
"""

import os
import sys
from pathlib import Path

from .library import folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(command: list[str]) -> None:
    """Replace this process by the command's."""
    if not command:
        sys.exit(__doc__)
    paths = [str(HERE / "startup"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    libraries = [str(folder()), os.environ.get("LD_LIBRARY_PATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
