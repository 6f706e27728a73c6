"""What the compiler makes of the kernels, what it says of faulty ones, and the gate over both."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpugrad.errors import DeviceError, KernelCompileError
from gpugrad.gpu import compiler, source
from gpugrad.planning.configurations import ELEMENTWISE, FAMILIES
from gpugrad.planning.instantiations import BY_LABEL, INSTANTIATIONS, Instantiation, exists_for
from tests.kernels import compile_gate, machine_code
from tests.kernels.compile_gate import Measured, Table
from tests.kernels.expected_sass import Subject, promised, register_limit

ARCH = "sm_90"
SIGMOID = Subject("sigmoid", "ELEMENT_F32", "sigmoid", ARCH)
SUM = Subject("bias_backward", "ELEMENT_F32", "bias_backward", ARCH)
PRODUCT = Subject("matmul_backward_ffma", "ELEMENT_F16 BLOCK_N=64", "matmul_backward_ffma", ARCH)
MACROS = ("ELEMENT_F32", *ELEMENTWISE.macros)
NOW = compiler.version()


def expect_to_pass(
    arch: str, instantiations: Sequence[Instantiation], capsys: pytest.CaptureFixture[str]
) -> None:
    table = compile_gate.rows_of(the_table(), instantiations)
    measured = compile_gate.measure(arch, instantiations)
    differences, failures = compile_gate.check(measured, table, [arch])
    if differences:
        with capsys.disabled():
            print(f"\nDifferent from {compile_gate.TABLE.name}:", *differences, sep="\n  ")
    assert not failures, "\n".join(failures)


def the_table() -> Table:
    return compile_gate.read_table(compile_gate.TABLE.read_text("utf-8"))


@pytest.mark.parametrize("arch", ["sm_90", "sm_90a"])
def test_a_kernel_of_each_file_passes_the_gate(
    arch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expect_to_pass(arch, compile_gate.tightest(the_table(), arch), capsys)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch",
    [one for one in compile_gate.ARCHITECTURES if one not in compile_gate.SAME_CODE_AS],
)
def test_every_kernel_passes_the_gate(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen: Sequence[Instantiation] = INSTANTIATIONS
    if arch in compile_gate.SIMILAR_TO:
        chosen = compile_gate.sample(the_table(), arch)
    expect_to_pass(arch, chosen, capsys)


@pytest.mark.parametrize(("arch", "other"), compile_gate.SIMILAR_TO.items())
def test_samples_speak_for_what_is_not_compiled(arch: str, other: str) -> None:
    """It is the other architecture's but for registers, of which it has more left than it takes."""
    table = the_table()
    chosen = compile_gate.sample(table, arch)
    assert {one.stem for one in chosen} == {
        one.stem for one in INSTANTIATIONS if exists_for(one.stem, arch)
    }
    for subject, row in table.rows.items():
        if subject.arch == arch and BY_LABEL[subject[:2]] not in chosen:
            like = table.rows[subject._replace(arch=other)]
            assert row | {"registers": 0} == like | {"registers": 0}
            assert row["registers"] - like["registers"] < compile_gate.SPARE_REGISTERS
            assert register_limit(subject) - row["registers"] >= compile_gate.SPARE_REGISTERS


def test_the_tightest_kernels_are_one_of_each_file() -> None:
    table = the_table()
    chosen = {one.stem: one for one in compile_gate.tightest(table, ARCH)}
    left = compile_gate.registers_left(table, ARCH)
    assert chosen.keys() == {one.stem for one in left}
    assert all(left[chosen[one.stem]] <= registers for one, registers in left.items())
    assert len(chosen) == len(compile_gate.tightest(table, ARCH))


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "other"), compile_gate.SAME_CODE_AS.items())
def test_architectures_of_the_same_code(arch: str, other: str) -> None:
    """The compiler makes it of one instantiation of each file, and the table says so of all."""
    for stem, macros in {one.stem: one.macros for one in INSTANTIATIONS}.items():
        if exists_for(stem, arch):
            one, two = (compiler.compile_kernel(stem, macros, of) for of in (arch, other))
            assert machine_code.kernels(one.cubin) == machine_code.kernels(two.cubin), stem
            assert compile_gate.read_log(one.log) == compile_gate.read_log(two.log), stem
    rows = the_table().rows
    assert {subject: row for subject, row in rows.items() if subject.arch == arch} == {
        subject._replace(arch=arch): row for subject, row in rows.items() if subject.arch == other
    }


def test_kernels_do_not_ask_which_of_the_same_code_they_are_compiled_for() -> None:
    """Or a sample of them would not speak for all."""
    asked = re.compile(r"__CUDA_ARCH__[^\n]*")
    lines = {line for stem in source.stems() for line in asked.findall(source.expand(stem))}
    numbers = {int(number) // 10 for line in lines for number in re.findall(r"\d{3,4}\b", line)}
    assert numbers  # some do ask
    for arch, other in compile_gate.SAME_CODE_AS.items():
        low, high = sorted(int(one.removeprefix("sm_")) for one in (arch, other))
        assert not numbers & set(range(low, high + 1))


def test_the_table_has_every_instantiation_on_every_architecture() -> None:
    text = compile_gate.TABLE.read_text("utf-8")
    table = compile_gate.read_table(text)
    assert compile_gate.table_text(table) == text
    assert {(one.stem, one.macros, one.arch) for one in table.rows} == {
        (one.stem, one.label, arch)
        for one in INSTANTIATIONS
        for arch in compile_gate.ARCHITECTURES
        if exists_for(one.stem, arch)
    }


def test_tensor_cores_need_an_architecture_that_has_them() -> None:
    assert exists_for("matmul_backward_ffma", "sm_75")
    assert not exists_for("matmul_backward_dmma", "sm_75")
    assert exists_for("matmul_backward_dmma", "sm_80")
    assert exists_for("matmul_backward_mma", "sm_90")
    assert exists_for("matmul_backward_wgmma", "sm_90a")
    assert not exists_for("matmul_backward_wgmma", "sm_90")
    assert not exists_for("matmul_backward_mma", "sm_90a")


def test_every_kernel_file_is_instantiated() -> None:
    assert {one.stem for one in INSTANTIATIONS} == set(source.stems()) == set(FAMILIES)
    assert all(isinstance(one.configuration, FAMILIES[one.stem]) for one in INSTANTIATIONS)


# The compiler's errors.


def test_an_error_carries_the_log_and_names_file_and_line() -> None:
    text = source.expand("sigmoid").replace("logistic(value[e])", "no_such_function(value[e])")
    with pytest.raises(
        KernelCompileError, match=r"^sigmoid: NVRTC rejected it for sm_90"
    ) as caught:
        compiler.compile_kernel("sigmoid", MACROS, ARCH, text=text)
    line = 1 + source.directory().joinpath("sigmoid.cu").read_text().split("logistic(value")[
        0
    ].count("\n")
    assert f"sigmoid.cu({line})" in caught.value.log
    assert "no_such_function" in caught.value.log
    assert caught.value.source == text


def test_an_instantiation_must_choose_an_element() -> None:
    with pytest.raises(KernelCompileError, match="ELEMENT_F32"):
        compiler.compile_kernel("sigmoid", ELEMENTWISE.macros, ARCH)


OF_FAMILIES = {FAMILIES[one.stem].__name__: one for one in INSTANTIATIONS}


@pytest.mark.slow
@pytest.mark.parametrize("one", OF_FAMILIES.values(), ids=OF_FAMILIES)
def test_kernels_have_no_default_for_what_the_host_chooses(one: Instantiation) -> None:
    """Without any of their macros they do not compile."""
    arch = compiler.architecture(one.stem, "90")
    for macro in one.configuration.macros:
        name = macro.partition("=")[0]
        macros = tuple(other for other in one.macros if other != macro)
        with pytest.raises(KernelCompileError, match=name):
            compiler.compile_kernel(one.stem, macros, arch)


@pytest.mark.parametrize("one", OF_FAMILIES.values(), ids=OF_FAMILIES)
def test_kernels_refuse_other_shared_memory_than_they_lay_out(one: Instantiation) -> None:
    asked = one.configuration.shared_bytes
    if asked:
        macros = (*one.macros[:-1], f"SHARED_BYTES={asked + 1024}")
        with pytest.raises(KernelCompileError, match="static assertion failed"):
            compiler.compile_kernel(one.stem, macros, compiler.architecture(one.stem, "90"))


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """What the compiler remembers of its installation is forgotten, before and after."""
    remembered = (
        *(compiler.missing, compiler.headers, compiler.version, compiler._loaded),
        compiler.fingerprint,
    )
    for one in remembered:
        one.cache_clear()
    yield
    for one in remembered:
        one.cache_clear()


def no_library() -> Any:
    raise RuntimeError('Failure finding "libnvrtc.so.13": No such file\n  listdir("lib"):\n    a')


def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)


def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuda.bindings.nvrtc.nvrtcVersion", no_library)


def without_a_working_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuda.bindings.nvrtc.nvrtcVersion", lambda: (7, 0, 0))


def without_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.util, "find_spec", lambda _: None)
    monkeypatch.setattr("cuda.pathfinder.find_nvidia_header_directory", lambda _: None)
    monkeypatch.setattr(compiler, "TOOLKITS", Path("/no/such"))
    for name in ("CUDA_PATH", "CUDA_HOME"):
        monkeypatch.setenv(name, "/no/such")


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("without", "says"),
    [
        (without_package, r"cuda\.core cannot be imported \(.+\)"),
        (without_library, r"NVRTC's library cannot be loaded \(Failure .+: No such file\)"),
        (
            without_a_working_library,
            r"NVRTC's library cannot be loaded \(nvrtcVersion returned 7\)",
        ),
        (without_headers, r"CUDA's headers \(cuda_fp16\.h\) cannot be found for NVRTC .+"),
    ],
)
def test_without_a_compiler_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, without: Callable[[pytest.MonkeyPatch], None], says: str
) -> None:
    without(monkeypatch)
    with pytest.raises(
        DeviceError, match=rf"^sigmoid: {says}; install it with pip install 'gpugrad\[cuda13\]'"
    ):
        compiler.compile_kernel("sigmoid", MACROS, ARCH)


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(
    ("loaded", "expected"),
    [
        ((13, 5), "NVRTC 13.5.37"),
        ((13, 3), "NVRTC 13.3"),  # a library of the system's beside the wheel
        ((12, 9), "NVRTC 12.9.86"),
        ((12, 8), "NVRTC 12.8"),
    ],
)
def test_the_version_is_of_the_library_that_is_loaded_or_the_error_is_told(
    monkeypatch: pytest.MonkeyPatch, loaded: tuple[int, int], expected: str
) -> None:
    wheels = {"nvidia-cuda-nvrtc": "13.5.37", "nvidia-cuda-nvrtc-cu12": "12.9.86"}
    monkeypatch.setattr(compiler, "_version", lambda name: wheels.get(name, ""))
    monkeypatch.setattr("cuda.bindings.nvrtc.nvrtcVersion", lambda: (0, *loaded))
    assert compiler.version() == expected
    compiler.version.cache_clear()
    compiler._loaded.cache_clear()
    without_library(monkeypatch)
    assert compiler.version() == "NVRTC of unknown version"


def a_toolkit(root: Path, version: int, text: str = "") -> Path:
    """Make a folder of CUDA's headers in a toolkit or a wheel."""
    include = root / "include"
    include.mkdir(parents=True)
    for name in compiler.HEADERS:
        (include / name).write_text(text)
    (include / "cuda.h").write_text(f"/* a licence */\n#define CUDA_VERSION {version}\n")
    return include


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked_anew: None) -> Path:
    """An empty folder in the place of where wheels are, and no toolkit."""
    without_headers(monkeypatch)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "nvidia")])
    monkeypatch.setattr(compiler.util, "find_spec", lambda _: spec)
    return tmp_path / "nvidia"


def load_nvrtc(monkeypatch: pytest.MonkeyPatch, *version: int) -> None:
    monkeypatch.setattr("cuda.bindings.nvrtc.nvrtcVersion", lambda: (0, *version))


@pytest.mark.parametrize("place", ["CUDA_PATH", "CUDA_HOME", "pathfinder", "/usr/local"])
def test_headers_are_of_the_major_version_of_the_nvrtc_that_is_loaded(
    monkeypatch: pytest.MonkeyPatch, wheels: Path, tmp_path: Path, place: str
) -> None:
    a_toolkit(wheels / "cu13", 13050)
    toolkit = tmp_path / "cuda-12.8"
    load_nvrtc(monkeypatch, 12, 9)
    assert compiler.headers() is None
    assert (
        f"CUDA's headers (cuda_fp16.h) cannot be found for NVRTC 12.9, "
        f"only {wheels}/cu13/include (CUDA 13.5); install it with pip install 'gpugrad[cuda13]'"
    ) in str(compiler.missing())
    found = a_toolkit(toolkit, 12080)
    if place == "pathfinder":
        finder = "cuda.pathfinder.find_nvidia_header_directory"
        monkeypatch.setattr(finder, lambda _: str(found))
    elif place == "/usr/local":
        monkeypatch.setattr(compiler, "TOOLKITS", tmp_path)
    else:
        monkeypatch.setenv(place, str(toolkit))
    for one in (compiler.headers, compiler.missing):
        one.cache_clear()
    assert compiler.headers() == found
    assert compiler.missing() is None
    wheel = a_toolkit(wheels / "cuda_runtime", 12090)  # beside CUDA 13's
    compiler.headers.cache_clear()
    assert compiler.headers() == wheel


@pytest.mark.parametrize("name", compiler.HEADERS)
def test_the_text_of_the_headers_is_in_the_key_of_a_kernel(
    monkeypatch: pytest.MonkeyPatch, wheels: Path, name: str
) -> None:
    """Wherever they are from: an upgrade of a toolkit changes files in place."""
    load_nvrtc(monkeypatch, 13, 0)
    folder = a_toolkit(wheels / "cu13", 13000)
    before = compiler.fingerprint()
    compiler.fingerprint.cache_clear()
    assert compiler.fingerprint() == before
    (folder / name).write_text("edited")
    compiler.fingerprint.cache_clear()
    assert compiler.fingerprint() != before


@pytest.mark.usefixtures("wheels")
def test_there_is_a_key_without_any_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the error is the compiler's."""
    load_nvrtc(monkeypatch, 13, 0)
    assert compiler.fingerprint()
    without_library(monkeypatch)
    for one in (compiler.headers, compiler.version, compiler.fingerprint, compiler._loaded):
        one.cache_clear()
    assert "unknown version" in compiler.fingerprint()


# The gate itself: what it reads from real machine code.

SPILLS = """
extern "C" __global__ void __launch_bounds__(1024) sigmoid(const float* a, float* b) {
  float value[200];
#pragma unroll
  for (int i = 0; i < 200; ++i) value[i] = a[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 200; ++i) b[i * 1024 + threadIdx.x] = value[199 - i] * value[i];
}
"""
MOVES = """
extern "C" __global__ void sigmoid(const float4* a, float4* b) { b[threadIdx.x] = a[threadIdx.x]; }
extern "C" __global__ void bias_backward(const float2* a, float* b) {
  __shared__ float4 moved[256];
  float* single = reinterpret_cast<float*>(moved);
  single[threadIdx.x] = a[threadIdx.x].x;
  single[threadIdx.x + 256] = a[threadIdx.x].y;
  __syncthreads();
  const float4 four = moved[(threadIdx.x + 8) % 128];
  b[threadIdx.x] = fmaf(four.x, four.y, four.z * four.w);
}
"""


def measured(text: str, arch: str = ARCH) -> Measured:
    one = BY_LABEL["sigmoid", "ELEMENT_F32"]
    return compile_gate.measure(arch, [one], text=text)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Architectures that are compiled for, from an empty folder of kept counts on."""
    monkeypatch.setenv("GPUGRAD_EMULATOR_CACHE", str(tmp_path))
    compile_kernel, found = compiler.compile_kernel, list[str]()

    def noted(stem: str, macros: tuple[str, ...], arch: str, *, text: str) -> Any:
        found.append(arch)
        return compile_kernel(stem, macros, arch, text=text)

    monkeypatch.setattr(compiler, "compile_kernel", noted)
    return found


@pytest.mark.slow
def test_the_same_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    first = measured(MOVES)
    assert measured(MOVES) == first
    assert compilations == [ARCH]
    compile_gate.measure(ARCH, [BY_LABEL["sigmoid", "ELEMENT_F16"]], text=MOVES)
    measured(MOVES + " ")
    measured(MOVES, "sm_80")
    monkeypatch.setattr(compiler, "fingerprint", lambda: "another compiler or its options")
    assert measured(MOVES) == first
    monkeypatch.setattr(machine_code, "__file__", __file__)  # other rules
    measured(MOVES)
    assert compilations == [ARCH, ARCH, ARCH, "sm_80", ARCH, ARCH]


def test_what_does_not_compile_is_not_kept(compilations: list[str]) -> None:
    assert measured("no kernel").rejected == measured("no kernel").rejected
    assert compilations == [ARCH, ARCH]


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [b"", b"\xff", b"{}", b'{"sigmoid": {"registers": 8}}\n0'])
def test_kept_counts_that_are_not_what_was_written_are_not_trusted(
    compilations: list[str], tmp_path: Path, wrong: bytes
) -> None:
    first = measured(MOVES)
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    for bad in (wrong, written.replace(b"1", b"2", 1), written[:-1]):
        file.write_bytes(bad)
        assert measured(MOVES) == first
        assert file.read_bytes() == written
    assert compilations == [ARCH] * 4


def test_a_planted_spill_fails() -> None:
    rows, rejected = measured(SPILLS)
    faults = "\n".join(compile_gate.faults(rows))
    assert not rejected
    assert rows[SIGMOID]["stack"] > 0
    assert f"{SIGMOID}: {rows[SIGMOID]['spilled']} bytes spilled" in faults
    assert f"{SIGMOID}: {rows[SIGMOID]['local']} local memory accesses" in faults
    assert "sigmoid [ELEMENT_F32] sigmoid sm_90" in faults


@pytest.mark.parametrize(
    "arch", [one for one in compile_gate.ARCHITECTURES if exists_for("sigmoid", one)]
)
def test_instructions_are_counted_kernel_by_kernel(arch: str) -> None:
    rows, rejected = measured(MOVES, arch)
    assert not rejected
    whole, halves = (
        rows[Subject("sigmoid", "ELEMENT_F32", kernel, arch)]
        for kernel in ("sigmoid", "bias_backward")
    )
    assert (whole["load_128"], whole["store_128"], whole["barrier"]) == (1, 1, 0)
    assert (halves["load_64"], halves["load_128"], halves["store_128"]) == (1, 0, 0)
    assert (halves["shared_load_128"], halves["shared_store_128"]) == (1, 0)
    assert (halves["ffma"], halves["barrier"], halves["shared_bytes"]) == (1, 1, 4096)


@pytest.mark.parametrize(
    ("old", "new", "remark"),
    [
        ("    ptx::wgmma_wait(part);\n", "", "(C7517) wgmma.wait_group is injected"),
        (
            "(THREADS, 1) __cluster",
            "(THREADS) __cluster",
            "(C7508) Potential Performance Loss: 'setm",
        ),
    ],
)
def test_what_the_assembler_remarks_on_hoppers_instructions_fails(
    old: str, new: str, remark: str
) -> None:
    stem = "matmul_backward_wgmma"
    text = source.expand(stem)
    assert text.count(old) == 1
    one = BY_LABEL[stem, "ELEMENT_F32 PLANES=2 BLOCK_N=64"]
    rows, rejected = compile_gate.measure("sm_90a", [one], text=text.replace(old, new))
    assert not rows
    assert remark in rejected[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("arrive.relaxed", "arrive.release", "2 memory barriers"),  # of the block, and of the GPU
        (
            "if (warp == 0 && ptx::elect_one()) {\n      for (",
            "if (threadIdx.x == 0) {\n      for (",
            "4 loops over the threads of a warp",  # one each copy: two planes of two operands
        ),
    ],
)
def test_what_machine_code_of_clusters_must_not_hold_fails(old: str, new: str, words: str) -> None:
    stem = "matmul_backward_wgmma"
    text = source.expand(stem)
    assert text.count(old) == 1
    one = BY_LABEL[stem, "ELEMENT_F32 PLANES=2 BLOCK_N=128"]
    rows, rejected = compile_gate.measure("sm_90a", [one], text=text.replace(old, new))
    assert not rejected
    assert [fault.split(": ")[1] for fault in compile_gate.faults(rows)] == [words]


def test_what_does_not_compile_fails() -> None:
    rows, rejected = measured("no kernel")
    assert not rows
    assert "sigmoid: NVRTC rejected it for sm_90 with ELEMENT_F32" in rejected[0]


def test_an_unreadable_cubin_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(RuntimeError, match="sm_90"):
        machine_code.disassemble([b"\1" * 24], ARCH)


# The gate's rules, on doctored reports, listings and tables.

LOG = """ptxas info    : 8 bytes gmem
ptxas info    : Compiling entry function 'bias_backward' for 'sm_90'
ptxas info    : Function properties for bias_backward
ptxas         .     {stack} bytes stack frame, {stores} bytes spill stores, 0 bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 4096 bytes smem
ptxas info    : Compile time = 33.602 ms
"""


def passing(subject: Subject, **changed: int) -> dict[str, int]:
    """Return the row of a kernel that does just what its contract promises."""
    row = dict.fromkeys((*compile_gate.COLUMNS, *compile_gate.ZERO), 0) | {"registers": 40}
    return row | promised(subject) | changed


@pytest.mark.parametrize("subject", [SIGMOID, SUM, PRODUCT])
def test_a_kernel_that_keeps_its_promises_passes(subject: Subject) -> None:
    rows = {subject: passing(subject)}
    assert compile_gate.faults(rows) == []
    table = compile_gate.read_table(compile_gate.table_text(Table(NOW, rows)))
    assert compile_gate.check(Measured(rows, []), table, [ARCH]) == ([], [])


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        ({"registers": 128}, ""),
        ({"registers": 129}, "129 registers, its launch bound leaves 128"),
        ({"stack": 8}, "8 bytes of stack"),
        ({"stores": 12}, "12 bytes spilled"),
    ],
)
def test_a_doctored_report_fails(reported: dict[str, int], words: str) -> None:
    log = LOG.format(**({"stack": 0, "stores": 0, "registers": 40} | reported))
    rows = {SUM: passing(SUM) | compile_gate.read_log(log)["bias_backward"]}
    expected = [f"bias_backward [ELEMENT_F32] bias_backward sm_90: {words}"] if words else []
    assert compile_gate.faults(rows) == expected
    with pytest.raises(ValueError, match="bias_backward is of a new form"):
        compile_gate.read_log(log.replace("bytes spill stores", "spilled"))


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (["LDG.E.128.CONSTANT", "@P0", "STG.E.128"], ""),
        (["LD.E.128", "ST.E.128"], ""),
        (["LDG.E.128.SYS", "STG.E.128.SYS"], ""),
        (["LDG.E", "STG.E.128"], "load_128 is 0, its contract promises 1 or more"),
        (["LDG.E.128", "STG.E.64"], "store_128 is 0, its contract promises 1 or more"),
        (["LDG.E.128", "STG.E.128", "STL.64"], "1 local memory accesses"),
        (["LDG.E.128", "STG.E.128", "MEMBAR.ALL.GPU"], "1 memory barriers"),
        (["LDG.E.128", "STG.E.128", "BRA.U.ANY", "BRA.U"], "1 loops over the threads of a warp"),
    ],
)
def test_a_doctored_listing_fails(listing: list[str], words: str) -> None:
    rows = {SIGMOID: passing(SIGMOID) | compile_gate.count(listing)}
    expected = [f"sigmoid [ELEMENT_F32] sigmoid sm_90: {words}"] if words else []
    assert compile_gate.faults(rows) == expected


def test_packed_multiply_adds_count_twice_and_moves_are_no_tensor_cores() -> None:
    counts = compile_gate.count(["FFMA2", "FFMA.RM", "HFMA2.MMA", "DFMA", "HGMMA.64x128x16.F32"])
    assert (counts["ffma"], counts["dfma"], counts["tensor"]) == (3, 1, 1)


@pytest.mark.parametrize(
    ("subject", "changed", "words"),
    [
        (SUM, {"registers": 44}, ""),
        (SUM, {"registers": 45}, "registers was 40, is 45"),
        (SUM, {"registers": 20}, ""),
        (SUM, {"shared_bytes": 4}, "shared_bytes was 0, is 4"),
        (SUM, {"load_64": 9}, ""),
        (PRODUCT, {"ffma": 300}, ""),
    ],
)
def test_what_is_worse_than_the_table_fails(
    subject: Subject, changed: dict[str, int], words: str
) -> None:
    table = Table(NOW, {subject: passing(subject)})
    now = {subject: passing(subject, **changed)}
    differences, failures = compile_gate.check(Measured(now, []), table, [ARCH])
    assert failures == ([f"{subject}: {words}"] if words else [])
    ((column, value),) = changed.items()
    assert len(differences) == 1  # reported in any case
    for word in (*subject, column, f"→ {value}"):
        assert word in differences[0]


def test_a_vector_access_lost_since_the_table_fails() -> None:
    """Also where enough are left for the contract."""
    table = Table(NOW, {SUM: passing(SUM, load_128=12, load_64=8)})
    now = {SUM: passing(SUM, load_128=10, load_64=6)}
    _, failures = compile_gate.check(Measured(now, []), table, [ARCH])
    assert failures == [f"{SUM}: load_128 was 12, is 10"]


def test_rows_missing_and_new_fail() -> None:
    table = Table(NOW, {SUM: passing(SUM)})
    _, failures = compile_gate.check(Measured({SIGMOID: passing(SIGMOID)}, []), table, [ARCH])
    assert failures == [
        f"{SUM}: in the table, not compiled any more",
        f"{SIGMOID}: not in the table",
    ]


def test_another_compiler_is_held_to_the_hard_rules_only() -> None:
    table = Table("nvrtc of another day", {SUM: passing(SUM)})
    now = {SUM: passing(SUM, registers=64, local=2)}
    differences, failures = compile_gate.check(Measured(now, []), table, [ARCH])
    assert failures == [f"{SUM}: 2 local memory accesses"]
    assert differences[0] == f"The table was made by nvrtc of another day; this is {NOW}."
    assert "40 → 64" in differences[-1]


def test_the_command_fails_reports_and_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.tsv"
    other = SUM._replace(arch="sm_80")
    table.write_text(
        compile_gate.table_text(Table(NOW, {one: passing(one) for one in (SUM, other)}))
    )
    rows = {SUM: passing(SUM, registers=50)}

    def measure(arch: str) -> Any:
        assert arch == ARCH
        return Measured(rows, [])

    monkeypatch.setattr(compile_gate, "TABLE", table)
    monkeypatch.setattr(compile_gate, "measure", measure)
    assert compile_gate.main(["--arch", ARCH]) == 1
    said = capsys.readouterr().out
    assert f"{SUM}: registers was 40, is 50" in said
    assert compile_gate.main(["--arch", ARCH, "--update"]) == 0
    assert compile_gate.main(["--arch", ARCH]) == 0
    kept = compile_gate.read_table(table.read_text()).rows
    assert {one: row["registers"] for one, row in kept.items()} == {SUM: 50, other: 40}

    rows[SUM]["spilled"] = 4  # no table excuses it
    assert compile_gate.main(["--arch", ARCH, "--update"]) == 1
    monkeypatch.setattr(compiler, "version", lambda: "another")
    with pytest.raises(SystemExit):  # a table of two compilers
        compile_gate.main(["--arch", ARCH, "--update"])
