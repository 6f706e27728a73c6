"""The NumPy path: threads, memory, bound calls."""
