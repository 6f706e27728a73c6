"""What commands that write a result share: options, the document's head, exit codes."""

import argparse
import datetime as dt
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import environment, section
from gpugrad import host
from gpugrad.benchmark import output
from gpugrad.errors import ArgumentError, DeviceError, GpugradError

RESULTS = section.ROOT / "bench" / "results"


def parser(
    name: str, description: str | None, *, quick: str, folder: bool
) -> argparse.ArgumentParser:
    """Return a parser with the options that all commands have."""
    found = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--quick", action="store_true", help=quick)
    if folder:
        found.add_argument("--output", type=Path, default=RESULTS, help="folder for JSON")
    else:
        found.add_argument("--output", type=Path, help="file for JSON (one in bench/results)")
    found.add_argument("--commit", help="what the tree was copied from, where it has no git")
    return found


def head(kind: str, version: int, *, quick: bool, commit: str | None) -> dict[str, Any]:
    """Begin a document; `version` of its format is raised when a reader would have to change."""
    return {
        "format": version,
        "kind": kind,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "source": environment.revision(section.ROOT, commit),
    }


def file_name(kind: str, *, quick: bool) -> str:
    """Name a file by the processor: a later run takes the place of an earlier one."""
    return environment.slug(kind, host.processor(), *(["quick"] * quick)) + ".json"


def run(
    name: str,
    path: Path,
    measure: Callable[[], dict[str, Any]],
    show: Callable[[Mapping[str, Any]], int],
) -> int:
    """Measure, write the document and show it; return the exit code."""
    try:
        with output.reserved(path) as write:
            document = measure()
            write(section.json_text(document).encode())
    except (ArgumentError, DeviceError) as error:
        code, reason = 2, str(error)
    except (GpugradError, RuntimeError) as error:
        code, reason = 1, f"{error}; nothing was written"
    except KeyboardInterrupt:
        code, reason = 130, "interrupted; nothing was written"
    else:
        print(path)
        return show(document)
    print(f"{name}: {reason}", file=sys.stderr)
    return code
