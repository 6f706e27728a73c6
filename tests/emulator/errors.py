"""The emulator's exception."""


class EmulatorError(RuntimeError):
    """A kernel that does not compile, was called wrongly, or was caught doing something wrong."""
