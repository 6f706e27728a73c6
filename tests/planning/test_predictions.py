"""Predicted times of calls on this machine's CPU, beside measured ones."""

import dataclasses
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import pytest

from gpugrad.cli import cpu_rates
from gpugrad.operations import OPERATIONS
from gpugrad.planning.cpu_costs import KINDS, cpu_seconds
from gpugrad.planning.problem import Problem

LAYERS = (
    (64, 64, 64),
    (1000, 100, 10),
    (8192, 128, 10),
    (4096, 64, 64),
    (20000, 64, 64),
    (50000, 32, 16),
    (300, 784, 128),
    (2048, 256, 256),
    (256, 512, 512),
    (512, 512, 512),
    (64, 1024, 1024),
    (16, 1024, 1024),
)
MATRICES = (  # rows, 1, columns
    (64, 1, 64),
    (1000, 1, 100),
    (4096, 1, 64),
    (256, 1, 512),
    (20000, 1, 64),
    (100_000, 1, 16),
    (2048, 1, 1024),
    (1_000_000, 1, 4),
)
pytestmark = pytest.mark.slow
DTYPES = ("float64", "float32")
# The median of predicted over measured, either way up. On two cores it was 1.07 to 1.25 in nine
# runs, with two to nine other processes that wanted them; a machine that is busy now and then moves
# it further. What is wrong by a factor of two everywhere is not within it.
MEDIAN = 1.6


TRIES = 3  # a machine that is busy with something else disturbs one, not all of them


class Timed(NamedTuple):
    problem: Problem
    seconds: float


def measure():
    """Measure rates, and calls of other sizes in turn with them: what disturbs one disturbs both.

    Return the rates, and problems with their seconds.
    """
    cases = [
        cpu_rates.case(op, size, dtype)
        for dtype in DTYPES
        for op in OPERATIONS
        for size in (LAYERS if "w" in OPERATIONS[op].operands else MATRICES)
    ]
    for step in cpu_rates.measure(1, DTYPES):
        if isinstance(step, str):
            for case in cases:
                case.measure()
        else:
            return step, [Timed(case.problem, case.seconds) for case in cases]
    raise AssertionError("nothing was measured")


@pytest.fixture(scope="module")
def expect():
    """Assert what holds of a measurement: of the first one, or of another that is taken then."""
    measurements = []

    def hold(assertion):
        for attempt in range(TRIES):
            if attempt == len(measurements):  # in a process that no other test has used
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    measurements.append(process.submit(measure).result())
            try:
                return assertion(*measurements[attempt])
            except AssertionError:
                if attempt == TRIES - 1:
                    raise
        return None

    return hold


def seconds(rates, case):
    return cpu_seconds(case.problem, rates, rates.workers)


def median_factor(rates, cases):
    factors = (seconds(rates, case) / case.seconds for case in cases)
    return math.exp(statistics.median(abs(math.log(one)) for one in factors))


def test_predictions_are_near_what_is_measured(expect):
    @expect
    def _(rates, cases):
        assert median_factor(rates, cases) < MEDIAN


def test_predictions_of_each_operation(expect):
    """No operation is left out of the model: each has half of its cases within twice the bound."""

    @expect
    def _(rates, cases):
        for op in OPERATIONS:
            own = [case for case in cases if case.problem.op == op]
            assert median_factor(rates, own) < 2 * MEDIAN, op


@pytest.mark.parametrize("factor", [0.3, 3])
def test_rates_that_are_wrong_are_found_out(factor, expect):
    @expect
    def _(rates, cases):
        unit = {
            dtype: {kind: factor * seconds for kind, seconds in units.items()}
            for dtype, units in rates.unit.items()
        }
        assert median_factor(dataclasses.replace(rates, unit=unit), cases) > MEDIAN


@pytest.mark.parametrize("missing", ["product", "gradient", "sigmoid"])
def test_work_that_is_not_counted_is_found_out(missing, expect):
    @expect
    def _(rates, cases):
        unit = {
            dtype: {kind: (kind != missing) * units[kind] for kind in KINDS}
            for dtype, units in rates.unit.items()
        }
        without = dataclasses.replace(rates, unit=unit)
        ops = {"product": "matmul_backward", "gradient": "sigmoid_backward", "sigmoid": "sigmoid"}
        own = [case for case in cases if case.problem.op == ops[missing]]
        most = [case for case in own if seconds(rates, case) > 4 * seconds(without, case)]
        assert most, "no case in which that work is most of the time"
        assert median_factor(without, most) > MEDIAN
