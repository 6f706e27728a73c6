"""The first tier of tests: each value of every parameter once. All other tests are slow."""

import zlib
from collections import defaultdict
from collections.abc import Iterable

import pytest


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Mark as `slow` what adds nothing but combinations: every value of its parameters has a test.

    A test body keeps tests in which each value of each parameter occurs, drawn in an order that the
    tests' names alone decide, so that backends, dtypes and shapes are mixed. Which tests stay does
    not depend on the process that collects them, or on other bodies.
    """
    bodies: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow") is None:
            bodies[item.nodeid.partition("[")[0]].append(item)
    for body in bodies.values():
        covered: set[tuple[str, str]] = set()
        for item in sorted(body, key=lambda one: zlib.crc32(one.nodeid.encode())):
            params = item.callspec.params if hasattr(item, "callspec") else {}
            values = {(name, repr(value)) for name, value in params.items()}
            if values and values <= covered:
                item.add_marker("slow")
            covered |= values
