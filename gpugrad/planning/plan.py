"""What a call will do.

The choice is made in choice.py, and imported where a call is planned.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from gpugrad.planning.gpu_costs import Step
    from gpugrad.planning.problem import ColumnSum, FusedLayer, Gemm


@dataclass(frozen=True)
class Plan:
    """What a call will do.

    Attributes
    ----------
    op : str
    device : {"cpu", "gpu"}
    algorithm : {"numpy", "elementwise", "column-sum", "ffma", "mma", "wgmma", "dmma"}
        On a GPU, matrix products are computed by IEEE multiply-adds ("ffma"), on tensor cores from
        16-bit planes ("mma", on Hopper "wgmma"), or on float64 tensor cores ("dmma"). Each
        product's Gemm has its own.
    cpu_seconds, gpu_seconds : float or None
        What the call should take on either device, transfers included. Predicted, by a simple
        model of rates. None where that device cannot compute the call: the CPU if the arrays are
        on a GPU, the GPU if there is none or if the CPU is asked for.
    reason : str
        Why this device and algorithm, in words.
    steps : tuple
        Name and Gemm or ColumnSum of each part of the work on a GPU; or "layer" and its
        FusedLayer, where one launch does all of it, or all but what has a step of its own.
    """

    op: str
    device: str
    algorithm: str
    cpu_seconds: float | None
    gpu_seconds: float | None
    reason: str
    steps: tuple[tuple[str, "Step"], ...] = ()

    @property
    def predicted_seconds(self) -> float:
        """What the call should take on the device of the plan; NaN where that was not asked."""
        seconds = self.cpu_seconds if self.device == "cpu" else self.gpu_seconds
        return math.nan if seconds is None else seconds

    def gemm(self, name: str) -> "Gemm":
        """Return the step that computes a product."""
        return cast("Gemm", dict(self.steps)[name])

    def column_sum(self, name: str) -> "ColumnSum":
        """Return the step that sums over rows."""
        return cast("ColumnSum", dict(self.steps)[name])

    @property
    def layer(self) -> "FusedLayer | None":
        """The step that computes all gradients of a layer in one launch, if that is the plan."""
        return cast("FusedLayer | None", dict(self.steps).get("layer"))

    @property
    def dw_apart(self) -> "Gemm | None":
        """The step of a dw that does not come from the launch of the rest, where there is one."""
        return None if self.layer is None else cast("Gemm | None", dict(self.steps).get("dw"))

    @property
    def planes(self) -> dict[str, int]:
        """Planes of the operands of each product, by its result; 0 where there are none."""
        layer = dict.fromkeys(("dx", "dw"), self.layer.planes) if self.layer else {}
        products = {name: one for name, one in self.steps if name not in ("layer", "db")}
        return layer | {name: cast("Gemm", one).planes for name, one in products.items()}
