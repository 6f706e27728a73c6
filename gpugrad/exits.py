"""How a command ends: exit codes, and the exceptions that lead to them."""

OK = 0
FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Failed(Exception):  # noqa: N818  (an outcome, which `main` turns into an exit code)
    """The work was begun and did not succeed."""


class Unusable(Exception):  # noqa: N818
    """A bad argument, or something missing that the command needs."""
