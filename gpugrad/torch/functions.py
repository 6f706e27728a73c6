"""Differentiable functions of PyTorch tensors."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Never, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function_variadic

from gpugrad.arrays.call import PRECISIONS
from gpugrad.backward import DenseGrads, MatmulGrads, SigmoidBiasGrads
from gpugrad.torch import operators, small_layers
from gpugrad.torch.errors import TorchArgumentError, TorchDTypeError, TorchShapeError
from gpugrad.torch.main_grad import IntoMainGrad

OPTIONAL = ("b", "bias")
Arguments = ParamSpec("Arguments")
Results = TypeVar("Results")


def _overridable(function: Callable[Arguments, Results]) -> Callable[Arguments, Results]:
    """Have arguments with ``__torch_function__`` handle a call, as torch.fx's proxies do."""

    @wraps(function)
    def public(*args: Arguments.args, **options: Arguments.kwargs) -> Results:
        if has_torch_function_variadic(*args, *options.values()):
            relevant = (*args, *options.values())
            results: Results = handle_torch_function(public, relevant, *args, **options)
            return results
        return function(*args, **options)

    return public


@_overridable
def sigmoid(z: Tensor, *, save_logits: bool = False) -> Tensor:
    """Logistic function y = σ(z) = 1/(1 + e⁻ᶻ), differentiable any number of times.

    Parameters
    ----------
    z : Tensor of any shape
        float64, float32, float16 or bfloat16.
    save_logits : bool
        Save z for the backward pass rather than y, so that the gradient σ(z) σ(−z) keeps its
        accuracy where y has rounded to 1.

    Returns
    -------
    Tensor
        y, of the shape, dtype and device of `z`.

    Raises
    ------
    RuntimeError
        For a dtype, layout or device without support.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> z = torch.tensor([17.0], requires_grad=True)
    >>> torch.autograd.grad(gpugrad.torch.sigmoid(z, save_logits=True).sum(), z)
    (tensor([4.1399e-08]),)
    >>> torch.autograd.grad(torch.sigmoid(z).sum(), z)
    (tensor([0.]),)
    """
    _expect_tensors("sigmoid", z=z)
    if _is_exporting():
        return z.sigmoid()
    return operators.sigmoid(z, save_logits)


@_overridable
def dense_sigmoid(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    precision: str = "highest",
    save_logits: bool = False,
) -> Tensor:
    """Dense sigmoid layer y = σ(x w + b), differentiable any number of times.

    Parameters
    ----------
    x : Tensor of shape (..., k)
    w : Tensor of shape (k, m)
        Of any strides: ``weight.t()`` of a torch.nn.Linear is read where it is.
    b : Tensor of shape (m,), optional
    precision : {"highest", "high", "medium", "ieee"}
        Accuracy that is asked of float32 products; see `gpugrad.matmul_backward`.
    save_logits : bool
        Save the logits x w + b for the backward pass rather than y, so that gradients keep their
        accuracy where y has rounded to 1. PyTorch computes them, as in torch.nn.functional.linear.

    Returns
    -------
    Tensor of shape (..., m)
        y. Within torch.autocast it has autocast's dtype.

    Raises
    ------
    RuntimeError
        For shapes or dtypes that do not fit, and dtypes, layouts or devices without support.

    Notes
    -----
    The backward pass is one call of `gpugrad.dense_sigmoid_backward` for those of x, w and b that
    require gradients. Small layers on the CPU, up to 2²⁶ multiply-adds in float32 or float64, are
    left to PyTorch's own functions, which take less time there.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> x, w = torch.ones(4, 2), torch.zeros(2, 3, requires_grad=True)
    >>> gpugrad.torch.dense_sigmoid(x, w).sum().backward()
    >>> w.grad
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    """
    _expect_tensors("dense_sigmoid", x=x, w=w, b=b)
    expect_precision("dense_sigmoid", precision)
    if _is_exported(x, w, b) or (
        not save_logits and w.dim() == 2 and small_layers.are_quicker_in_pytorch(x, w.t(), b)
    ):
        if b is not None and x.dim() == 2:
            return torch.addmm(b, x, w).sigmoid()
        z = x @ w
        return (z if b is None else z + b).sigmoid()
    return _layer(x, w, b, precision, save_logits)


@_overridable
def sigmoid_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    precision: str = "highest",
    save_logits: bool = False,
    main_grad: bool = False,
) -> Tensor:
    """Sigmoid of torch.nn.functional.linear, y = σ(x weightᵀ + bias).

    Parameters
    ----------
    x : Tensor of shape (..., k)
    weight : Tensor of shape (m, k)
    bias : Tensor of shape (m,), optional
    precision, save_logits
        As for `dense_sigmoid`.
    main_grad : bool
        Have the backward pass add the gradients of weight and bias to their attributes
        ``main_grad``, tensors of float32 (float64 for float64), instead of returning them: sums
        over many backward passes of 16-bit layers keep their digits. One that is missing is made,
        but not while a CUDA graph is captured; it is the caller's to apply and to clear. ``grad``
        stays as it was. Takes leaves alone, and allows neither second derivatives nor
        torch.compile.

    Returns
    -------
    Tensor of shape (..., m)

    Raises
    ------
    RuntimeError
        As `dense_sigmoid`; for a ``main_grad`` of another shape, dtype or device in the backward
        pass.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> linear = torch.nn.Linear(3, 2)
    >>> gpugrad.torch.sigmoid_linear(torch.ones(4, 3), linear.weight, linear.bias).shape
    torch.Size([4, 2])
    """
    plain = not (main_grad or save_logits) and precision in PRECISIONS
    if plain and small_layers.are_quicker_in_pytorch(x, weight, bias):
        return functional.linear(x, weight, bias).sigmoid()
    op = "sigmoid_linear"
    _expect_tensors(op, x=x, weight=weight, bias=bias)
    expect_precision(op, precision)
    if main_grad:
        if torch.compiler.is_compiling():
            _fail(op, "main_grad=True, which torch.compile cannot trace")
        for name, tensor in (("weight", weight), ("bias", bias)):
            if tensor is not None and not tensor.is_leaf:
                _fail(op, f"{name} is no leaf, whose main_grad would be lost with it")
        values = (None if one is None else one.detach() for one in (weight, bias))
        x, w, b = in_autocast(x, *values)
        return IntoMainGrad.apply(x, weight, bias, _turned(op, w), b, precision, save_logits)
    if _is_exported(x, _turned(op, weight), bias):
        return functional.linear(x, weight, bias).sigmoid()
    return _layer(x, _turned(op, weight), bias, precision, save_logits)


@_overridable
def matmul_backward(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    *,
    wrt: Iterable[str] = ("x", "w"),
    precision: str = "highest",
) -> MatmulGrads:
    """Gradients of y = x w: dx = dy wᵀ and dw = xᵀ dy, themselves differentiable.

    Parameters
    ----------
    dy : Tensor of shape (..., m)
    x : Tensor of shape (..., k)
    w : Tensor of shape (k, m)
    wrt : iterable of {"x", "w"}
        What to differentiate with respect to; the rest is None and is not computed.
    precision : {"highest", "high", "medium", "ieee"}

    Returns
    -------
    MatmulGrads
        dx of shape (..., k) and dw of shape (k, m).

    Raises
    ------
    RuntimeError
        As `dense_sigmoid`.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> x, w = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    >>> gpugrad.torch.matmul_backward(torch.tensor([[10.0]]), x, w).dx
    tensor([[30., 40.]])
    """
    op = "matmul_backward"
    _expect_tensors(op, dy=dy, x=x, w=w)
    expect_precision(op, precision)
    need = _expect_wrt(op, wrt, ("x", "w"))
    results = operators.matmul_backward(dy, x, w, *need, precision)
    return MatmulGrads(*_wanted(need, results))


@_overridable
def bias_backward(dy: Tensor) -> Tensor:
    """Gradient of y = z + b with respect to b: db = Σ dy over all but the last dimension.

    Parameters
    ----------
    dy : Tensor of shape (..., m)

    Returns
    -------
    Tensor of shape (m,)

    Raises
    ------
    RuntimeError
        As `dense_sigmoid`.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> gpugrad.torch.bias_backward(torch.ones(4, 2))
    tensor([4., 4.])
    """
    _expect_tensors("bias_backward", dy=dy)
    return operators.bias_backward(dy)


@_overridable
def sigmoid_backward(dy: Tensor, y: Tensor | None, *, z: Tensor | None = None) -> Tensor:
    """Gradient of y = σ(z): dz = dy · y · (1 − y), or dy · σ(z) · σ(−z), itself differentiable.

    Parameters
    ----------
    dy : Tensor of any shape
    y : Tensor of the same shape
        May be None where `z` is given, which then is all that is read.
    z : Tensor of the same shape, optional
        The logits.

    Returns
    -------
    Tensor
        dz, of the shape of `dy`.

    Raises
    ------
    RuntimeError
        As `dense_sigmoid`.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> gpugrad.torch.sigmoid_backward(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.75]))
    tensor([0.2500, 0.3750])
    """
    _expect_y_or_z("sigmoid_backward", y, z, dy=dy)
    return operators.sigmoid_backward(dy, y, z)


@_overridable
def sigmoid_bias_backward(
    dy: Tensor, y: Tensor | None, *, z: Tensor | None = None
) -> SigmoidBiasGrads:
    """Gradients of y = σ(v + b) in one pass, dz and db = Σ dz, themselves differentiable.

    Parameters
    ----------
    dy : Tensor of shape (..., m)
    y : Tensor of shape (..., m)
        May be None where `z` is given.
    z : Tensor of shape (..., m), optional
        The logits v + b.

    Returns
    -------
    SigmoidBiasGrads
        dz of shape (..., m) and db of shape (m,).

    Raises
    ------
    RuntimeError
        As `dense_sigmoid`.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> gpugrad.torch.sigmoid_bias_backward(torch.ones(2, 1), torch.tensor([[0.5], [0.75]])).db
    tensor([0.4375])
    """
    _expect_y_or_z("sigmoid_bias_backward", y, z, dy=dy)
    return SigmoidBiasGrads(*operators.sigmoid_bias_backward(dy, y, z))


@_overridable
def dense_sigmoid_backward(
    dy: Tensor,
    y: Tensor | None,
    x: Tensor,
    w: Tensor,
    *,
    z: Tensor | None = None,
    wrt: Iterable[str] = ("x", "w", "b"),
    precision: str = "highest",
) -> DenseGrads:
    """Gradients of a dense sigmoid layer y = σ(x w + b) in one call, themselves differentiable.

    Parameters
    ----------
    dy : Tensor of shape (..., m)
    y : Tensor of shape (..., m)
        May be None where `z` is given.
    x : Tensor of shape (..., k)
    w : Tensor of shape (k, m)
    z : Tensor of shape (..., m), optional
        The logits x w + b.
    wrt : iterable of {"x", "w", "b"}
        What to differentiate with respect to; the rest is None and is not computed.
    precision : {"highest", "high", "medium", "ieee"}

    Returns
    -------
    DenseGrads
        dx of shape (..., k), dw of shape (k, m) and db of shape (m,).

    Raises
    ------
    RuntimeError
        As `dense_sigmoid`.

    Notes
    -----
    Differentiated once more, the gradients are functions of dy, y (or z), x and w, each on its own:
    that y depends on x and w is left to autograd.

    Examples
    --------
    >>> import torch, gpugrad.torch
    >>> x, w = torch.ones(4, 2), torch.zeros(2, 3)
    >>> y = gpugrad.torch.dense_sigmoid(x, w)
    >>> gpugrad.torch.dense_sigmoid_backward(torch.ones_like(y), y, x, w, wrt=("b",))
    DenseGrads(dx=None, dw=None, db=tensor([1., 1., 1.]))
    """
    op = "dense_sigmoid_backward"
    _expect_y_or_z(op, y, z, dy=dy, x=x, w=w)
    expect_precision(op, precision)
    need = _expect_wrt(op, wrt, ("x", "w", "b"))
    results = operators.dense_sigmoid_backward(dy, y, x, w, z, *need, precision)
    return DenseGrads(*_wanted(need, results))


def _layer(x: Tensor, w: Tensor, b: Tensor | None, precision: str, save_logits: bool) -> Tensor:
    x, w, b = in_autocast(x, w, b)
    if save_logits:
        y: Tensor = operators.dense_sigmoid_and_logits(x, w, b, precision)[0]
        return y
    return operators.dense_sigmoid(x, w, b, precision)


def _is_exporting() -> bool:
    """Return whether a program is made that runs without gpugrad: of PyTorch's own operators."""
    return bool(torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export())


def _is_exported(x: Tensor, w: Tensor, b: Tensor | None) -> bool:
    """Return whether a layer is exported, checked as the operators check it."""
    if not _is_exporting():
        return False
    if not torch.jit.is_tracing():  # where extents are no numbers
        operators.expect_forward(*in_autocast(x, w, b))
    return True


def in_autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Return tensors in the dtype that torch.autocast asks of products; float64 stays."""
    first: Any = tensors[0]
    device = "cpu" if first.is_cpu else "cuda"
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        one.to(dtype)
        if one is not None and one.is_floating_point() and one.dtype is not torch.float64
        else one
        for one in tensors
    )


def _wanted(need: tuple[bool, ...], results: Iterable[Tensor]) -> Iterable[Tensor | None]:
    return (one if is_wanted else None for is_wanted, one in zip(need, results, strict=True))


def _turned(op: str, weight: Tensor) -> Tensor:
    """Return w (k, m) for a weight (m, k)."""
    if weight.dim() != 2:
        raise TorchShapeError(f"{op}: weight has shape {tuple(weight.shape)}, expected (m, k)")
    return weight.t()


# ---- checks that need no data; the operators make the others


def _fail(op: str, text: str) -> Never:
    raise TorchArgumentError(f"{op}: {text}")


def _expect_tensors(op: str, **tensors: Any) -> None:
    for name, value in tensors.items():
        if isinstance(value, Tensor) or (value is None and name in OPTIONAL):
            continue
        what = "None" if value is None else f"a {type(value).__name__}"
        raise TorchDTypeError(f"{op}: {name} is {what}, expected a PyTorch tensor")


def _expect_y_or_z(op: str, y: Any, z: Any, **tensors: Any) -> None:
    if y is not None or z is None:
        tensors["y"] = y
    if z is not None:
        tensors["z"] = z
    _expect_tensors(op, **tensors)


def expect_precision(op: str, precision: object) -> None:
    """Check the precision class."""
    if precision not in PRECISIONS:
        _fail(op, f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")


def _expect_wrt(op: str, wrt: Iterable[str], allowed: tuple[str, ...]) -> tuple[bool, ...]:
    wanted = set(wrt)
    for name in sorted(wanted - set(allowed), key=repr):
        _fail(op, f"wrt names {name!r}, expected some of {', '.join(allowed)}")
    return tuple(name in wanted for name in allowed)
