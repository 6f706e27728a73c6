"""The static parameters of a traced call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gpugrad
from gpugrad.operations import OPERATIONS


@dataclass(frozen=True)
class Traced:
    """A call without its arrays.

    Attributes
    ----------
    op : str
    names, results : tuple of str
        The operands that are read and the results that are wanted, in order.
    precision : str
    save_logits : bool
        Whether the gradient of a forward pass is computed from the logits. `dense_sigmoid` then has
        the logits as an operand and computes its result from them; its gradients are those of x, w
        and b.
    """

    op: str
    names: tuple[str, ...]
    results: tuple[str, ...]
    precision: str
    save_logits: bool = False

    @property
    def is_forward(self) -> bool:
        """Whether this is a forward pass."""
        return self.results == ("y",)

    @property
    def is_layer_of_logits(self) -> bool:
        """Whether this is `dense_sigmoid` with its logits as an operand."""
        return self.op == "dense_sigmoid" and self.save_logits

    def shapes(self, operands: Mapping[str, Any]) -> list[tuple[int, ...]]:
        """Return the shapes of the results."""
        shapes = {name: tuple(one.shape) for name, one in operands.items()}
        if "y" in shapes or "z" in shapes:
            shapes.setdefault("dy", shapes.get("y", shapes.get("z", ())))
        known = OPERATIONS[self.op].result_shapes(shapes)
        return [known[name] for name in self.results]

    def compute(
        self, operands: Mapping[str, Any], out: Sequence[Any] | None = None
    ) -> tuple[Any, ...]:
        """Call gpugrad's function, with results in new arrays or in `out`."""
        if self.is_layer_of_logits:
            return (gpugrad.sigmoid(operands["z"], out=None if out is None else out[0]),)
        operation = OPERATIONS[self.op]
        options: dict[str, Any] = {}
        if operation.wrt:
            options["wrt"] = tuple(name.removeprefix("d") for name in self.results)
        if operation.products:
            options["precision"] = self.precision
        if out is not None:
            buffers = dict(zip(self.results, out, strict=True))
            given = tuple(buffers.get(name) for name in operation.results)
            options["out"] = given if len(given) > 1 else given[0]
        results = getattr(gpugrad, self.op)(
            **dict.fromkeys(operation.operands) | dict(operands), **options
        )
        results = results if isinstance(results, tuple) else (results,)
        return tuple(one for one in results if one is not None)
