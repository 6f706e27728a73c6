"""The command ``gpugrad``: info, check, bench, tune, demo."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Never

import gpugrad
from gpugrad import exits
from gpugrad.cli import bench, check, demo, info, tune

COMMANDS = {"info": info, "check": check, "bench": bench, "tune": tune, "demo": demo}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if None.

    Returns
    -------
    int
        0 if all went well, 1 if a check or the work failed, 2 for a bad argument or something
        missing, 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows a "?"
    command = ""
    try:
        arguments = _parser().parse_args(argv)
        command = f" {arguments.command}"
        code = int(COMMANDS[arguments.command].run(arguments))
        print(end="", flush=True)
        return code
    except SystemExit as end:  # argparse: --help, --version, a usage error
        return end.code if isinstance(end.code, int) else exits.UNUSABLE
    except KeyboardInterrupt:
        return _say(command, "interrupted", exits.INTERRUPTED)
    except (exits.Unusable, gpugrad.DeviceError) as error:
        return _say(command, str(error), exits.UNUSABLE)
    except MemoryError:
        return _say(command, "out of memory", exits.FAILED)
    except BrokenPipeError:  # the reader of our output has left
        _abandon_stdout()
        return exits.FAILED
    except OSError as error:
        _abandon_stdout()
        return _say(command, _reason(error), exits.FAILED)
    except (exits.Failed, gpugrad.GpugradError) as error:
        return _say(command, str(error), exits.FAILED)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> Never:
        self.exit(exits.UNUSABLE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="gpugrad",
        description=gpugrad.__doc__,
        epilog="Exit codes: 0 all went well, 1 a check or the work failed, "
        "2 a bad argument or something missing, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"gpugrad {gpugrad.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, module in COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0].partition(": ")[2].rstrip(".")
        one = commands.add_parser(name, help=summary, description=summary)
        one.add_argument("--json", action="store_true", help="print JSON and nothing else")
        module.add_arguments(one)
    return parser


def _say(command: str, text: str, code: int) -> int:
    print(f"gpugrad{command}: {' '.join(text.split())}", file=sys.stderr)
    return code


def _reason(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}"


def _abandon_stdout() -> None:
    """Keep the interpreter from flushing, at its end, what cannot be written."""
    with suppress(OSError, ValueError):  # there may be no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
