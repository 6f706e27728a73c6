"""A store of recipes that is bounded, keeps those in use, and takes calls from many threads."""

import threading
from collections.abc import Hashable
from typing import Any


class Recipes:
    """Recipes by key, in two generations: what the young one forgets, the old one still knows.

    A recipe that is found among the old is young again. So those in use stay, as where the least
    recently used are dropped, but finding one takes no note of it: that would hash the key twice.
    """

    def __init__(self) -> None:
        self._young: dict[Hashable, Any] = {}
        self._old: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, key: Hashable, most: int) -> Any:
        """Give a recipe, or None; TypeError where the key has no hash."""
        recipe = self._young.get(key)
        if recipe is None and self._old:
            recipe = self._old.get(key)
            if recipe is not None:
                self.keep(key, recipe, most)
        return recipe

    def keep(self, key: Hashable, recipe: Any, most: int) -> None:
        """Keep a recipe, and of all no more than `most`, which is at least 2."""
        with self._lock:
            if len(self._young) >= most // 2:
                self._young, self._old = {}, self._young
            self._young[key] = recipe

    def clear(self) -> None:
        """Drop all, also in a process that was forked while a thread held the lock."""
        self._young, self._old, self._lock = {}, {}, threading.Lock()
