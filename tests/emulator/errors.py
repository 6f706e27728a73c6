"""The emulator's exceptions."""


class EmulatorError(RuntimeError):
    """A kernel that does not compile, was called wrongly, or was caught doing something wrong."""


class MissingTool(RuntimeError):  # noqa: N818  (of the machine, no fault)
    """A program or a package is not installed; the message names it, and how it is installed."""
