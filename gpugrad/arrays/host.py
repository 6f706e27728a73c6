"""Bound calls on arrays in host memory, computed on the CPU or on a GPU."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gpugrad.arrays.view import as_rows, may_overlap
from gpugrad.operations import OPERATIONS

Spec = tuple[tuple[int, ...], Any, str]  # a result's shape, dtype and memory order
Named = Mapping[str, Any]


class HostCall:
    """A bound call on arrays in host memory, for all arrays of one signature.

    Parameters
    ----------
    op : str
    inputs : dict
        Arrays with the operands' layout, in the order of the operation's arguments; None for those
        that are not read.
    results : dict
        Shape, dtype and memory order of the results to allocate.
    buffers : dict
        Arrays with the layout of the caller's buffers.
    bind : function
        Returns, for operands and results, a function of all arguments and all results in order
        that computes them.
    flatten : bool
        Flatten leading dimensions to rows.
    empty : function
        Allocates a result.
    wrap : function or None
        Converts a result to the caller's kind, if that is not NumPy.
    mark_written : function or None
        Records in the arrays' framework that a buffer was written.
    """

    def __init__(
        self,
        op: str,
        inputs: Named,
        results: Mapping[str, Spec],
        buffers: Named,
        bind: Callable[[Named, Named], Callable[..., None]],
        *,
        flatten: bool = True,
        empty: Callable[..., Any] = np.empty,
        wrap: Callable[[Any], Any] | None = None,
        mark_written: Callable[[Any], None] | None = None,
    ) -> None:
        self.op, self._empty, self._wrap, self._mark_written = op, empty, wrap, mark_written
        operation = OPERATIONS[op]
        self._unread = [index for index, one in enumerate(inputs.values()) if one is None]
        self._results = [results.get(name) for name in operation.results]
        outputs = {
            name: buffers[name] if name in buffers else np.empty(*results[name])  # type: ignore[call-overload]
            for name in operation.results
            if name in buffers or name in results
        }
        flat = {
            name: as_rows(one)
            if one is not None and flatten and operation.is_flattened(name)
            else one
            for name, one in (*inputs.items(), *outputs.items())
        }
        given = [*inputs.items(), *((name, outputs.get(name)) for name in operation.results)]
        rows = [
            None if one is None or flat[name].shape == one.shape else flat[name].shape
            for name, one in given
        ]
        self._rows = rows if any(one is not None for one in rows) else None
        self._copied = [  # results whose rows are copies
            index
            for index, name in enumerate(operation.results)
            if name in outputs and outputs[name].size
            if not np.may_share_memory(flat[name], outputs[name])
        ]
        self._is_plain = self._rows is None and not self._unread and wrap is None
        self._compute = bind(
            {name: flat[name] for name in inputs}, {name: flat[name] for name in outputs}
        )

    def __call__(
        self,
        operands: Sequence[Any],
        given: Sequence[Any] | None = None,
        buffers: Sequence[Any] | None = None,
    ) -> list[Any] | None:
        """Compute as `compute` does; return None if a buffer may overlap another array."""
        if given is None and self._is_plain:  # saves 1 µs
            empty = self._empty
            results = [None if one is None else empty(*one) for one in self._results]
            self._compute(*operands, *results)
            return results
        if buffers is not None and may_overlap(buffers, operands):
            return None
        return self.compute(operands, given, buffers)

    def compute(
        self,
        operands: Sequence[Any],
        given: Sequence[Any] | None = None,
        buffers: Sequence[Any] | None = None,
    ) -> list[Any]:
        """Compute the results.

        Parameters
        ----------
        operands : sequence
            NumPy arrays in the order of the arguments, and None.
        given : sequence, optional
            The caller's buffers; None for each result to allocate.
        buffers : sequence, optional
            The same buffers as NumPy arrays.

        Returns
        -------
        list
            The results in order, None for those that are not wanted.
        """
        empty, wrap = self._empty, self._wrap
        if given is None or buffers is None:
            results = [None if one is None else empty(*one) for one in self._results]
            self._write(operands, results)
            if wrap is None:
                return results
            return [None if one is None else wrap(one) for one in results]
        results = [
            (None if one is None else empty(*one)) if buffer is None else buffer
            for one, buffer in zip(self._results, buffers, strict=True)
        ]
        try:
            self._write(operands, results)
        except BaseException as error:
            error.add_note(f"{self.op}: out may have been written in part")
            raise
        for index, one in enumerate(given):
            if one is not None:
                results[index] = one
                if self._mark_written is not None:
                    self._mark_written(one)
            elif wrap is not None and results[index] is not None:
                results[index] = wrap(results[index])
        return results

    def _write(self, operands: Sequence[Any], results: Sequence[Any]) -> None:
        if self._unread:
            operands = [*operands]
            for index in self._unread:
                operands[index] = None
        if self._rows is None:
            self._compute(*operands, *results)
            return
        arrays = [
            one if flat is None else one.reshape(flat)
            for one, flat in zip((*operands, *results), self._rows, strict=True)
        ]
        self._compute(*arrays)
        for index in self._copied:
            target = results[index]
            target[...] = arrays[len(operands) + index].reshape(target.shape)
