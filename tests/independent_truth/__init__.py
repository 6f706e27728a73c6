"""Kernels and emulator against sources that share nothing with either: see README.md."""

from .cute import LEADING, MAJORS, Tables, layouts

__all__ = ["LEADING", "MAJORS", "Tables", "layouts"]
