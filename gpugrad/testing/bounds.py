"""What every operation should return, in higher precision, and how far off a result may be.

A result r of an operation passes where |r - exact| <= bound, element by element. The bounds hold
for every order of summation and are derived here, not tuned.

**Model.** Inputs are taken as exact. Sums, products and the sigmoid are computed in the
accumulator (float64 for float64 inputs, else float32) and rounded once to the result's dtype.
Each operation returns its exact value times 1 + δ, |δ| <= u, or within the smallest subnormal η
of it where it underflows. u is 2⁻⁵³ or 2⁻²⁴; v is 2⁻¹¹ for float16 and 2⁻⁸ for bfloat16. The
reference itself is computed in float64 (np.longdouble for float64 inputs) by the same formulas,
with a unit roundoff of its own, which is added to u: so the bounds hold also where np.longdouble
is no wider than float64. γ_p = p u / (1 - p u) bounds p such factors together.

**Sums.** Σ over L terms t_i, each a product of an input and a value a_i known within A_i: every
term passes one product and at most L - 1 additions, and one more rounding where the sum is
brought from a wider accumulator to a narrower one:

    bound = γ_(L+1) Σ(|a_i| + A_i)|b_i| + Σ A_i |b_i| + L η.

Accumulating into a buffer adds one term, the buffer's old value.

**Exponential.** e = exp(-|z|) is within 3 ulp (CUDA documents 2 for float32 and 1 for float64,
NumPy 2.52), a relative error of 6 u, or 4 η below the normal numbers.

**Sigmoid.** σ(z) is e/(1 + e) or 1/(1 + e): a relative change of e changes it by no more than
itself, and an addition and a division follow: γ_8 σ(z) + 5 η. In a dense layer z = Σ x w + b is
known within Z as a sum above. From σ' <= 1/4 and σ(z + d) <= exp(|d|) σ(z) the error passes on as
at most min(Z/4, σ(z) (exp(Z) - 1)).

**Sigmoid's gradient, from y.** dz = dy · (y · (1 - y)) makes three roundings:
γ_3 |dz| + η (1 + |dy|).

**Sigmoid's gradient, from z.** dz = dy · f(e), f(e) = e/(1 + e)². The relative condition of f,
(1 - e)/(1 + e), lies between 0 and 1, so that e brings 6 roundings at most. The CPU's order makes
5 more and σ(z) · (e · σ(z)) 7; 10 are allowed: γ_16 |dz| + 5 η (1 + |dy|).

**Rounding to a narrower result.** bound + v (|exact| + bound) + η/2, η of the result.

**Products on tensor cores** take their operands as 16-bit planes (kernels/planes.cuh). A rounded
plane leaves 2⁻⁸ of a value in bfloat16, 2⁻¹¹ in float16, or half of float16's smallest step,
2⁻²⁵, beside a largest magnitude M of the row or column that has been scaled to 2¹³ or more; the
last plane makes 2⁻²⁴ of what is too small for any:

    planes   what is left of a value v            products that are left out
    3        0                                    2⁻²³ |a||b|
    2        2⁻²² |v| + 2⁻⁴⁸ M                    (2⁻¹¹|a| + 2⁻³⁸ M_a)(2⁻¹¹|b| + 2⁻³⁸ M_b)
    1        2⁻¹¹ |v| + 2⁻³⁷ M                    none

and nothing of a 16-bit element, which is its own plane; but dense_sigmoid_backward rounds dz to the
inputs' dtype before the products. Tensor cores truncate each addend behind a float32's last bit, by
1 or 2 bits, and the sum of 8 or 16 of them at the last bit, which is at most 1.4 u of the
magnitudes for each term; promotion adds 3 roundings for every 16 terms. 2 (L + 16) roundings are
allowed.

**Overflow.** Where |exact| is clearly beyond the result's largest value, exact becomes an
infinity, which is then demanded. Where it depends on the order or the last rounding whether
something overflows (the sum of the terms' magnitudes exceeds the accumulator's largest value), the
bound is infinite and anything passes.

**Non-finite inputs.** exact has the infinities and NaNs of IEEE arithmetic with bound 0, which
demands the same infinity or a NaN. Where an infinite dy meets a σ' that the accumulator may round
to zero, the bound is infinite.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpugrad.errors import ArgumentError
from gpugrad.operations import OPERATIONS

Array = np.ndarray[Any, Any]

EXP_ROUNDINGS = 6
SIGMOID_ROUNDINGS = EXP_ROUNDINGS + 2
GRADIENT_FROM_Y_ROUNDINGS = 3
GRADIENT_FROM_Z_ROUNDINGS = EXP_ROUNDINGS + 10
MMA_TERMS = 16


class Format(NamedTuple):
    """A floating-point format: unit roundoff, smallest subnormal, largest number."""

    roundoff: float
    subnormal: float
    largest: float


FORMATS = {
    "float64": Format(2.0**-53, 2.0**-1074, (2 - 2.0**-52) * 2.0**1023),
    "float32": Format(2.0**-24, 2.0**-149, (2 - 2.0**-23) * 2.0**127),
    "float16": Format(2.0**-11, 2.0**-24, 65504.0),
    "bfloat16": Format(2.0**-8, 2.0**-133, (2 - 2.0**-7) * 2.0**127),
}


class Answer(NamedTuple):
    """What a result should be, element by element.

    Attributes
    ----------
    exact : array
        The value, in higher precision.
    bound : array
        The distance from it that is allowed.
    magnitude : array
        The sum of the magnitudes of the terms whose sum it is. A sigmoid is its own term; in a
        dense layer those of its argument, times its slope, are added.
    """

    exact: Array
    bound: Array
    magnitude: Array


def reference(
    op: str,
    *,
    wrt: Iterable[str] | None = None,
    out: Mapping[str, Array] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    planes: Mapping[str, int] | None = None,
    **operands: Array | None,
) -> dict[str, Answer]:
    """Compute the results of a function of this package in higher precision, with error bounds.

    Parameters
    ----------
    op : str
        Name of the function.
    wrt : iterable of {"x", "w", "b"}, optional
        What matmul_backward and dense_sigmoid_backward differentiate with respect to; all that
        they can if it is not given.
    out : mapping, optional
        By result, the old values of the buffers that are added to.
    dtypes : mapping, optional
        By result, its dtype where that is not the inputs'.
    planes : mapping, optional
        By result, the planes of each operand of its product on tensor cores, as `plan` returns
        them; without an entry, or with 0, its bound is that of float32 or float64 arithmetic.
    **operands
        NumPy arrays by the names of the function's parameters. z takes precedence over y.

    Returns
    -------
    dict
        By result ("dx", "dw", "db", "dz" or "y"), its value and bound.

    Raises
    ------
    ArgumentError
        `op` is no function of this package, or an operand is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from gpugrad.testing import reference
    >>> exact, bound, _ = reference("sigmoid", z=np.float32([0, 100]))["y"]
    >>> exact.tolist(), bool((bound < 1e-6).all())
    ([0.5, 1.0], True)
    """
    if op not in OPERATIONS:
        raise ArgumentError(f"reference: op is {op!r}, expected one of {', '.join(OPERATIONS)}")
    operation = OPERATIONS[op]
    arrays = {name: np.asarray(one) for name, one in operands.items() if one is not None}
    optional = {*operation.optional, "y" if "z" in arrays else "z"}
    wrong = arrays.keys() - set(operation.arguments)
    wrong |= set(operation.arguments) - arrays.keys() - optional
    if wrong:
        takes = ", ".join(operation.arguments)
        raise ArgumentError(f"reference: {op} takes {takes}; too many or missing: {sorted(wrong)}")
    source = arrays[operation.operands[0]].dtype
    wanted = (tuple(operation.wrt if wrt is None else wrt),) if operation.wrt else ()
    with np.errstate(all="ignore"):
        call = _Reference(source.name, arrays, out or {}, planes or {})
        answers: dict[str, Answer] = getattr(call, op)(*wanted)
        return {
            name: _rounded(answer, source.name, np.dtype((dtypes or {}).get(name, source)).name)
            for name, answer in answers.items()
        }


class _Reference:
    """One call's operands in the reference's precision; a method an operation."""

    def __init__(
        self,
        dtype: str,
        arrays: Mapping[str, Array],
        out: Mapping[str, Array],
        planes: Mapping[str, int],
    ) -> None:
        self.dtype, self.planes = dtype, planes
        wide = np.longdouble if dtype == "float64" else np.float64
        accumulator = FORMATS["float64" if dtype == "float64" else "float32"]
        self.roundoff = accumulator.roundoff + float(np.finfo(wide).eps) / 2
        self.subnormal, self.largest = wide(accumulator.subnormal), accumulator.largest
        self.arrays = {name: array.astype(wide) for name, array in arrays.items()}
        self.old = {name: array.astype(wide) for name, array in out.items()}

    def gamma(self, roundings: int) -> float:
        return roundings * self.roundoff / (1 - roundings * self.roundoff)

    # ---- operations

    def matmul_backward(self, wrt: tuple[str, ...]) -> dict[str, Answer]:
        dy = _known(self.arrays["dy"])
        return self._products({"dx": dy, "dw": dy}, wrt)

    def bias_backward(self) -> dict[str, Answer]:
        return {"db": self._column_sum(_known(self.arrays["dy"]))}

    def sigmoid_backward(self) -> dict[str, Answer]:
        return {"dz": self._gradient()}

    def sigmoid_bias_backward(self) -> dict[str, Answer]:
        dz, old = self._gradient(), self.old.get("dz")
        db = self._column_sum(dz)
        if old is not None:
            dz = self._total(dz.exact, dz.magnitude, dz.bound, 1, old)
        return {"dz": dz, "db": db}

    def dense_sigmoid_backward(self, wrt: tuple[str, ...]) -> dict[str, Answer]:
        dz = self._gradient()
        answers = self._products({one: self._stored(one, dz) for one in ("dx", "dw")}, wrt)
        return answers | ({"db": self._column_sum(dz)} if "b" in wrt else {})

    def sigmoid(self) -> dict[str, Answer]:
        return {"y": self._sigmoid(_known(self.arrays["z"]))}

    def dense_sigmoid(self) -> dict[str, Answer]:
        x, w, b = self.arrays["x"], self.arrays["w"], self.arrays.get("b")
        rows = _rows(x)
        y = self._sigmoid(self._product("y", _known(rows), w, b))
        shape = (*x.shape[:-1], w.shape[1])
        return {"y": _each(y, lambda one: one.reshape(shape))}

    # ---- their parts

    def _sigmoid(self, z: Answer) -> Answer:
        e = np.exp(-np.abs(z.exact))
        y: Array = np.where(z.exact >= 0, 1, e) / (1 + e)
        passed_on = np.fmin(z.bound / 4, y * np.expm1(z.bound))
        bound = passed_on + self.gamma(SIGMOID_ROUNDINGS) * (y + passed_on) + 5 * self.subnormal
        largest = np.where(np.isposinf(z.bound), np.inf, _finite(y))
        return self._finish(y, bound, y + y * (1 - y) * z.magnitude, largest)

    def _gradient(self) -> Answer:
        dy, y, z = self.arrays["dy"], self.arrays.get("y"), self.arrays.get("z")
        if z is None:
            assert y is not None
            rest: Array = 1 - y
            slope: Array = y * rest
            roundings, lost, ambiguous = GRADIENT_FROM_Y_ROUNDINGS, 1, np.zeros(dy.shape, bool)
        else:
            e = np.exp(-np.abs(z))
            slope = e / ((1 + e) * (1 + e))
            roundings, lost = GRADIENT_FROM_Z_ROUNDINGS, 5
            ambiguous = np.isinf(dy) & (slope > 0) & (slope < 8 * self.subnormal)
        dz: Array = dy * slope
        bound = self.gamma(roundings) * np.abs(dz) + lost * self.subnormal * (1 + np.abs(dy))
        largest = np.maximum(_finite(dz), _finite(slope))
        return self._finish(dz, bound, _finite(dz), np.where(ambiguous, np.inf, largest))

    def _products(self, dz: Mapping[str, Answer], wrt: tuple[str, ...]) -> dict[str, Answer]:
        """Compute dx and dw, each from its own dz."""
        x, w = self.arrays["x"], self.arrays["w"]
        operands = {name: _each(one, _rows) for name, one in dz.items()}
        answers = {}
        if "x" in wrt:
            old = self.old.get("dx")
            dx = self._product("dx", operands["dx"], w.T, None if old is None else _rows(old))
            answers["dx"] = _each(dx, lambda one: one.reshape(x.shape))
        if "w" in wrt:
            old = self.old.get("dw")
            transposed = _each(operands["dw"], np.transpose)  # dwᵀ = dzᵀ x
            dw = self._product("dw", transposed, _rows(x), None if old is None else old.T)
            answers["dw"] = _each(dw, np.transpose)
        return answers

    def _stored(self, result: str, dz: Answer) -> Answer:
        """Round dz to 16-bit inputs' dtype on its way into a product on tensor cores."""
        return _rounded(dz, self.dtype, self.dtype) if self.planes.get(result) else dz

    def _product(self, result: str, a: Answer, b: Array, old: Array | None) -> Answer:
        """Multiply A, known within its bound, by b, and add the old values."""
        left, right, terms = _finite(a.exact), _finite(b), a.exact.shape[1]
        planes = self.planes.get(result, 0)
        uncertain = _infinite_if_nan(a.bound @ right)
        if planes:
            uncertain = uncertain + self._lost_in_planes(planes, left + _finite(a.bound), right)
        # Where A is rounded to 0, 0 · ∞ is NaN.
        lost = (a.exact != 0) & (np.abs(a.exact) <= a.bound)
        uncertain = np.where(lost.astype(float) @ ~np.isfinite(b) > 0, np.inf, uncertain)
        answer = _matmul(a.exact, b)
        return self._total(answer, left @ right, uncertain, terms, old, planes > 0)

    def _lost_in_planes(self, planes: int, a: Array, b: Array) -> Array:
        """Bound what planes lose of the product of matrices with these magnitudes."""
        if self.dtype != "float32" or not a.size or not b.size:
            return np.zeros((a.shape[0], b.shape[1]))
        largest = a.max(axis=1, keepdims=True), b.max(axis=0, keepdims=True)
        return lost_in_planes(planes, (a, b), largest)

    def _column_sum(self, dz: Answer) -> Answer:
        exact, uncertain = _rows(dz.exact), np.sum(_rows(dz.bound), axis=0)
        magnitude, old = np.sum(_finite(exact), axis=0), self.old.get("db")
        return self._total(np.sum(exact, axis=0), magnitude, uncertain, len(exact), old)

    def _total(
        self,
        exact: Array,
        magnitude: Array,
        uncertain: Array,
        terms: int,
        old: Array | None,
        on_tensor_cores: bool = False,
    ) -> Answer:
        """Bound a sum with the given sum of its terms' magnitudes, plus the old values."""
        magnitude = magnitude + uncertain
        roundings = 2 * (terms + MMA_TERMS) if on_tensor_cores else terms + 1
        if old is not None:
            exact, magnitude, roundings = exact + old, magnitude + _finite(old), roundings + 1
        bound = self.gamma(roundings) * magnitude + uncertain + terms * self.subnormal
        return self._finish(exact, bound, magnitude, magnitude)

    def _finish(self, exact: Array, bound: Array, magnitude: Array, largest: Array) -> Answer:
        """Demand what is not finite, unless something on the way, `largest`, may overflow."""
        bound = np.where(np.isfinite(exact) | np.isposinf(bound), bound, 0)
        bound = np.where(largest + bound >= self.largest, np.inf, bound)
        return Answer(exact, bound, magnitude)


def lost_in_planes(planes: int, values: Sequence[Array], largest: Sequence[Array]) -> Array:
    """Bound what float32 operands' planes lose of a product.

    Parameters
    ----------
    planes : {1, 2, 3}
    values : two arrays
        Magnitudes of the operands, (rows, contraction) and (contraction, columns).
    largest : two arrays
        The largest magnitudes of the first one's rows and of the second one's columns.
    """
    a, b = values
    if planes == 3:
        return np.asarray(2.0**-23 * (a @ b))

    def left(unit: int, step: int) -> list[Array]:
        pairs = zip(values, largest, strict=True)
        return [2.0**unit * one + 2.0**step * top for one, top in pairs]

    a_rest, b_rest = left(-11, -37) if planes == 1 else left(-22, -48)
    lost = a_rest @ b + a @ b_rest + a_rest @ b_rest
    if planes == 2:
        a_second, b_second = left(-11, -38)
        lost = lost + a_second @ b_second
    return np.asarray(lost)


def _rounded(answer: Answer, source: str, result: str) -> Answer:
    """Round an answer in the accumulator of `source` to the dtype `result`."""
    exact, bound, magnitude = answer
    target = FORMATS[result]
    if result != ("float64" if source == "float64" else "float32"):
        error = bound + target.roundoff * (np.abs(exact) + bound) + target.subnormal / 2
        bound = np.where(np.isfinite(exact), error, bound)
    largest = exact.dtype.type(target.largest)
    top = largest + largest * target.roundoff / 2  # rounds to infinity from here
    beyond = np.isfinite(exact) & (np.abs(exact) - bound >= top)
    near = np.isfinite(exact) & (np.abs(exact) + bound >= top) & ~beyond
    exact = np.where(beyond, np.copysign(np.inf, exact), exact)
    return Answer(exact, np.where(near, np.inf, np.where(beyond, 0, bound)), magnitude)


def _known(array: Array) -> Answer:
    """Take an input, which is no sum."""
    return Answer(array, *np.zeros((2, *array.shape), array.dtype))


def _each(answer: Answer, function: Callable[[Array], Array]) -> Answer:
    return Answer(*map(function, answer))


def _rows(array: Array) -> Array:
    return array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


def _finite(array: Array) -> Array:
    """Magnitudes, with zeros for what is not finite."""
    return np.where(np.isfinite(array), np.abs(array), 0)


def _infinite_if_nan(bound: Array) -> Array:
    """Repair what became of an infinite bound times zero."""
    return np.where(np.isnan(bound), np.inf, bound)


def _matmul(a: Array, b: Array) -> Array:
    """Multiply matrices; without a BLAS, which may skip zeros, where something is not finite."""
    if np.isfinite(a).all() and np.isfinite(b).all():
        return np.asarray(a @ b)
    return np.asarray(np.einsum("ij,jk->ik", a, b))
