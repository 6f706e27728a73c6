"""The command ``gpugrad``: info, check, bench, tune, demo."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Never

import gpugrad
from gpugrad.cli import exits

COMMANDS = ("info", "check", "bench", "tune", "demo")  # modules, imported when they are asked for


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        0 on success, 1 if a check or the command failed, 2 for a bad argument or a missing
        requirement, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # "?" for characters that the terminal lacks
    command = ""
    try:
        arguments = _parser().parse_args(argv)
        command = f" {arguments.command}"
        code = int(_module(arguments.command).run(arguments))
        print(end="", flush=True)
        return code
    except SystemExit as end:  # argparse: --help, --version, a usage error
        return end.code if isinstance(end.code, int) else exits.UNUSABLE
    except KeyboardInterrupt:
        return _report(command, "interrupted", exits.INTERRUPTED)
    except (exits.Unusable, gpugrad.ArgumentError, gpugrad.DeviceError) as error:
        return _report(command, str(error), exits.UNUSABLE)
    except MemoryError:
        return _report(command, "out of memory", exits.FAILED)
    except BrokenPipeError:  # the reader of the output has exited
        _abandon_stdout()
        return exits.FAILED
    except OSError as error:
        _abandon_stdout()
        return _report(command, _reason(error), exits.FAILED)
    except (exits.Failed, gpugrad.GpugradError) as error:
        return _report(command, str(error), exits.FAILED)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> Never:
        self.exit(exits.UNUSABLE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="gpugrad",
        description=gpugrad.__doc__,
        epilog="Exit codes: 0 success, 1 a check or the command failed, "
        "2 a bad argument or a missing requirement, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"gpugrad {gpugrad.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name in COMMANDS:
        module = _module(name)
        summary = (module.__doc__ or "").partition("\n")[0].partition(": ")[2].rstrip(".")
        one = commands.add_parser(name, help=summary, description=summary)
        one.add_argument("--json", action="store_true", help="print JSON and nothing else")
        module.add_arguments(one)
    return parser


def _module(command: str) -> Any:
    return importlib.import_module(f"{__name__}.{command}")


def _report(command: str, text: str, code: int) -> int:
    print(f"gpugrad{command}: {' '.join(text.split())}", file=sys.stderr)
    return code


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _abandon_stdout() -> None:
    """Redirect stdout to null, so that the final flush of the interpreter does not fail."""
    with suppress(OSError, ValueError):  # stdout may have no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
