"""A module that replaces torch.nn.Linear and torch.nn.Sigmoid."""

from typing import Any

import torch
from torch import Tensor

from gpugrad.torch import functions


class SigmoidLinear(torch.nn.Module):  # type: ignore[misc]  # it is Any
    """Dense sigmoid layer y = σ(x weightᵀ + bias), for Sequential(Linear(...), Sigmoid()).

    Parameters
    ----------
    in_features, out_features : int
        k and m.
    bias : bool
    device, dtype
        Of the parameters.
    precision : {"highest", "high", "medium", "ieee"}
        Accuracy that is asked of float32 products; see `gpugrad.matmul_backward`.
    save_logits : bool
        Save the logits for the backward pass rather than y, so that gradients keep their accuracy
        where y has rounded to 1; see `dense_sigmoid`.
    main_grad : bool
        Add gradients to the parameters' attributes ``main_grad``; see `sigmoid_linear`.

    Attributes
    ----------
    weight : Parameter of shape (m, k)
    bias : Parameter of shape (m,), or None

    Notes
    -----
    Parameters are named, laid out and initialised as those of torch.nn.Linear, from the same random
    numbers: its state_dict loads, and that of the Sequential.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> layer = gpugrad.torch.SigmoidLinear(64, 10)
    >>> layer
    SigmoidLinear(in_features=64, out_features=10, bias=True)
    >>> layer(torch.zeros(5, 64)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        precision: str = "highest",
        save_logits: bool = False,
        main_grad: bool = False,
    ) -> None:
        super().__init__()
        functions.expect_precision("SigmoidLinear", precision)
        self.in_features, self.out_features = in_features, out_features
        self.precision, self.save_logits, self.main_grad = precision, save_logits, main_grad
        self.weight = torch.nn.Parameter(
            torch.empty((out_features, in_features), device=device, dtype=dtype)
        )
        if bias:
            self.bias = torch.nn.Parameter(torch.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as torch.nn.Linear does."""
        torch.nn.Linear.reset_parameters(self)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # as in torch.nn.Linear
        """Return y (..., m) for x (..., k)."""
        # A module's attributes take 0.5 µs each, of the 50 that a step of 64 × 64 × 64 takes. What
        # computes a weight anew, such as weight_norm, leaves no parameter of that name.
        weight, bias = self._parameters.get("weight"), self._parameters.get("bias")
        return functions.sigmoid_linear(
            input,
            self.weight if weight is None else weight,
            self.bias if bias is None else bias,
            precision=self.precision,
            save_logits=self.save_logits,
            main_grad=self.main_grad,
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the state of Sequential(Linear, Sigmoid) too, whose names begin with "0."."""
        for name in ("weight", "bias"):
            if f"{prefix}0.{name}" in state_dict:
                state_dict.setdefault(prefix + name, state_dict.pop(f"{prefix}0.{name}"))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Return what differs from the defaults."""
        shown = (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
        if self.precision != "highest":
            shown += f", precision={self.precision!r}"
        for name in ("save_logits", "main_grad"):
            shown += f", {name}=True" if getattr(self, name) else ""
        return shown
