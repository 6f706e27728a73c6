"""CUDA errors that end a process's use of its GPU, as headers document and libraries raise them."""

import re

import pytest
from cupy.cuda import runtime

from bench.sticky_errors import STICKY, is_sticky
from gpugrad.gpu import compiler

COMMENTED = re.compile(
    r"/\*\*((?:(?!\*/).)*)\*/\s*(CUDA_ERROR_\w+|cudaError\w+)\s*=\s*(\d+)", re.DOTALL
)
ENDS = ("must be terminated and relaunched", "must be destroyed", "uncorrectable")


def documented(header):
    """List name, number and comment of every error of a header of CUDA's."""
    folder = compiler.headers()
    assert folder is not None, compiler.missing()
    text = (folder / header).read_text(encoding="utf-8")
    found = [
        (name, int(number), " ".join(comment.replace("*", " ").split()))
        for comment, name, number in COMMENTED.findall(text)
    ]
    assert len(found) > 60
    return found


@pytest.mark.parametrize("header", ["cuda.h", "driver_types.h"])
def test_what_the_headers_document_is_recognised_and_nothing_else(header):
    for name, number, comment in documented(header):
        ends = any(one in comment for one in ENDS)
        assert (number in STICKY) == ends, name
        assert is_sticky(RuntimeError(f"{name}: a message of its own")) == ends, name


@pytest.mark.parametrize("status", STICKY)
def test_as_cupy_raises_it(status):
    error = runtime.CUDARuntimeError(status)
    assert is_sticky(error)
    assert is_sticky(RuntimeError(str(error)))
    assert is_sticky(RuntimeError(str(error).partition(": ")[2]))  # PyTorch's has no name


@pytest.mark.parametrize("status", [1, 2, 98, 209, 400, 701, 720, 900, 901])
def test_other_errors_of_cuda_leave_the_process_its_gpu(status):
    assert not is_sticky(runtime.CUDARuntimeError(status))


def test_errors_that_led_to_others_count():
    class AcceleratorError(RuntimeError):
        error_code = 700

    error = ValueError("it failed")
    assert not is_sticky(error)
    error.__cause__ = AcceleratorError("without words")
    assert is_sticky(error)
    assert not is_sticky(AssertionError("1 != 700"))
    assert not is_sticky(None)
