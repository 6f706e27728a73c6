"""Exit codes of the commands, and the exceptions that lead to them."""

OK = 0
FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130  # 128 + SIGINT, as in shells


class Failed(Exception):  # noqa: N818  (`main` turns it into an exit code)
    """The command did not succeed."""


class Unusable(Exception):  # noqa: N818
    """A bad argument or a missing requirement."""
