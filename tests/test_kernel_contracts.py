"""What every kernel file promises at its head is there and true; what none may do is not done."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import gpugrad
from gpugrad.gpu import dmma, mma, source, wgmma
from gpugrad.planning.plan import FUSED, GEMM_STEP, THREADS, fused_layer
from gpugrad.planning.problem import Problem
from tests import compile_gate, contract_promises
from tests.instantiations import INSTANTIATIONS

KERNELS = sorted(source.directory().glob("*.cu"))
HEADERS = sorted(source.directory().glob("*.cuh"))
FILES = {path.name: path for path in (*KERNELS, *HEADERS)}
FIELDS = ("shapes", "launch", "shared", "requires", "traffic", "order")
MACHINES = ("ffma", "mma", "dmma", "wgmma")  # what the last word of a stem may name
ROWS = compile_gate.read_table(compile_gate.TABLE.read_text("utf-8")).rows

FLAG = re.compile(r"(\w+_)?(along|packed)|accumulate(_\w+)?")
FAST_MATH = re.compile(
    r"\b__(expf|exp10f|logf|log2f|log10f|powf|sinf|cosf|sincosf|tanf|tanhf|fdividef|frcp_\w+)\b"
    r"|\bh2?(exp|exp2|exp10|tanh_approx|rcp|rsqrt)\b|\.approx\b|\.ftz\b"
    r"|use_fast_math|fast_math|-ftz=true|ftz=True|prec_(div|sqrt)=(False|false)|fmad=true"
)
DYNAMIC = re.compile(r"([\w ×+()]+) bytes, dynamic")
ASKED: dict[str, Callable[[str], int]] = {  # for macros, by the end of a stem
    "fused_ffma": lambda macros: fused_bytes("float32", "ffma", number("TILE", macros)),
    "fused_mma": lambda macros: fused_bytes(
        "float32" if "ELEMENT_F32" in macros else "bfloat16", "mma", number("TILE", macros)
    ),
    "mma": lambda macros: mma.shared_bytes(number("TILE", macros), number("PLANES", macros)),
    "wgmma": lambda macros: wgmma.shared_bytes(number("TILE", macros), number("PLANES", macros)),
    "dmma": lambda macros: dmma.shared_bytes(number("TILE", macros)),
}


def fused_bytes(dtype: str, algorithm: str, tile: int) -> int:
    """Give what the package asks for, for a layer with as many outputs as the tile has room for."""
    plan = fused_layer(Problem("dense_sigmoid_backward", 1, 1, tile, dtype), algorithm)
    assert plan is not None
    return plan.shared_bytes


EXTENTS = re.compile(r"n|m|k|rows|columns|contraction|splits|split_length|count|(\w+_)?stride")


class Kernel(NamedTuple):
    bounds: list[str]  # the arguments of __launch_bounds__
    symbol: str
    parameters: list[str]


def code(text: str) -> str:
    """Give a source without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def contract(text: str) -> tuple[str, dict[str, str]]:
    """Give the title and the fields of the comment at the head of a kernel file."""
    head = re.match(r"(//[^\n]*\n)+", text)
    assert head, "there is no comment at the head"
    title, _, rest = head[0].partition("//\n")
    fields: dict[str, str] = {}
    for line in rest.splitlines():
        match = re.fullmatch(r"// (?:(\w+) +|          +)(\S.*)", line)
        assert match, f"not a field, nor the rest of one in its column: {line}"
        if match[1]:
            name = match[1]
            fields[name] = match[2]
        else:
            fields[name] += " " + match[2]
    return re.sub(r"\s*\n?// ", " ", title).strip(), fields


def kernels(text: str) -> list[Kernel]:
    """Find the kernels of a source."""
    pattern = (
        r'extern "C" __global__ void\s*(?:__launch_bounds__\(([^)]*)\))?'
        r"(?:\s*__cluster_dims__\([^)]*\))?\s*(\w+)\(([^)]*)\)"
    )
    return [
        Kernel(_listed(bounds), symbol, _listed(parameters))
        for bounds, symbol, parameters in re.findall(pattern, code(text))
    ]


def _listed(text: str) -> list[str]:
    return [" ".join(one.split()) for one in text.split(",") if one.strip()]


def faults_of_offsets(text: str) -> list[str]:
    """Find products of extents that may be computed in 32 bits.

    A look at the text, no compiler: it knows the names that are declared as Offset anywhere in it,
    and finds (1) parameters of kernels that are neither pointers, Offset, tensor maps, nor named as
    flags are;
    (2) an int declared by the name of an extent or stride; (3) an int, or a cast to int, whose
    expression has a product and one of those names; (4) blockIdx multiplied by what is no Offset.
    It does not see a narrowing through a call, a macro or an assignment, and knows no scopes. The
    emulator, which runs these files in the other tests, reports signed overflows where they happen.
    """
    plain = code(text)
    offsets = set(re.findall(r"\bOffset\s+(\w+)", plain))
    for members in re.findall(r"\bOffset\s+(\w+(?:\s*,\s*\w+)+)\s*;", plain):
        offsets.update(_listed(members))
    found = []
    for kernel in kernels(text):
        for parameter in kernel.parameters:
            kind, name = re.fullmatch(r"(.*?)(\w+)", parameter).groups()  # type: ignore[union-attr]
            flag = kind.strip() == "int" and FLAG.fullmatch(name)
            if not ("*" in kind or kind.split()[-1] in ("Offset", "TensorMap") or flag):
                found.append(f"{kernel.symbol}: parameter {parameter}")
    integer = r"\b(?:int|unsigned|uint32_t|int32_t)\b"
    declared = re.findall(rf"{integer}\s+(\w+)", plain)
    found += [f"int {name}" for name in declared if EXTENTS.fullmatch(name)]
    narrowed = re.findall(rf"{integer}\s+\w+\s*=([^;]*);", plain)
    narrowed += re.findall(rf"{integer}(\((?:[^()]|\([^()]*\))*\))", plain)
    found += [
        f"int from {' '.join(expression.split())}"
        for expression in narrowed
        if "*" in expression and offsets & set(re.findall(r"\w+", expression))
    ]
    products = re.findall(r"(\w+)\s*\*\s*blockIdx\.\w", plain)
    products += re.findall(r"blockIdx\.\w\s*\*\s*(\w+)", plain)
    found += [f"blockIdx * {name}" for name in products if name not in offsets]
    return found


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def resolved(stem: str, field: str) -> str:
    """Give a field with the one that it refers to: "as <another stem>"."""
    text = contract(read(FILES[f"{stem}.cu"]))[1][field]
    match = re.search(r"\bas (\w+_\w+)", text)
    return f"{text} {resolved(match[1], field)}" if match else text


@pytest.fixture(params=KERNELS, ids=lambda path: path.stem)
def kernel_file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> Path:
    return FILES[request.param]


def test_every_contract_has_its_fields_in_order(kernel_file: Path) -> None:
    title, fields = contract(read(kernel_file))
    assert re.match(rf"{kernel_file.stem}: \S", title), "the first line is `// <stem>: formula`"
    assert tuple(fields) == FIELDS
    for name in FIELDS:
        assert resolved(kernel_file.stem, name).strip()


def test_the_symbols_are_those_that_the_contract_names(kernel_file: Path) -> None:
    """The stem; the stem with what a label of the launch field names; or one named in the title."""
    title, fields = contract(read(kernel_file))
    words = kernel_file.stem.split("_")
    base = "_".join(words[:-1] if words[-1] in MACHINES else words)
    found = [kernel.symbol for kernel in kernels(read(kernel_file))]
    assert found
    assert len(found) == code(read(kernel_file)).count("__global__")
    for symbol in found:
        label = symbol.removeprefix(f"{base}_")
        named = re.search(rf"\b{symbol}\b", title) or f"{label}: grid" in fields["launch"]
        assert named, f"{symbol} is not in the contract"
    assert set(found) == {one.kernel for one in ROWS if one.stem == kernel_file.stem}


def test_launch_bounds_are_the_blocks_that_the_contract_states(kernel_file: Path) -> None:
    launch = contract(read(kernel_file))[1]["launch"]
    for block in re.findall(r"block \(([^)]*)\)", launch):
        if re.fullmatch(r"[\d, ]+", block):
            threads = 1
            for extent in block.split(","):
                threads *= int(extent)
        else:
            stated = re.search(rf"{block.replace(', ', ' ')} = (\d+)", launch)
            assert stated, f"how many threads is a block ({block})?"
            threads = int(stated[1])
        assert threads == (wgmma.THREADS if kernel_file.stem.endswith("_wgmma") else THREADS)
    for kernel in kernels(read(kernel_file)):
        assert kernel.bounds, f"{kernel.symbol} has no launch bounds"
        of_stem = "WGMMA_THREADS" if kernel_file.stem.endswith("_wgmma") else "THREADS"
        assert kernel.bounds[0] == of_stem
        blocks = (kernel.bounds[1:] or ["1"])[0]
        for subject in ROWS:
            if subject.kernel == kernel.symbol and blocks != "BLOCKS_A_SM":
                assert contract_promises.blocks_a_multiprocessor(subject) == int(blocks)


def test_constants_are_those_that_the_package_and_the_gate_count_on() -> None:
    element, gemm = (read(FILES[name]) for name in ("element.cuh", "gemm_ffma.cuh"))
    assert f"constexpr int THREADS = {THREADS};" in element
    assert f"constexpr int BLOCK_K = {contract_promises.BLOCK_K};" in gemm
    assert "constexpr int THREAD = BLOCK / 16;" in gemm
    assert "BLOCKS_A_SM = BLOCK > 64 || sizeof(Accumulator) > 4 ? 1 : 2;" in gemm
    double = read(FILES["gemm_dmma.cuh"])
    assert f"constexpr int BLOCK_K = {GEMM_STEP};" in double
    assert f"constexpr int STAGES = {dmma.STAGES};" in double
    assert f"OPERAND_TILE = BLOCK * (BLOCK_K + {dmma.PADDING});" in double
    assert "constexpr int BLOCKS_A_SM = BLOCK > 64 ? 1 : 2;" in double
    planes = read(FILES["gemm_mma.cuh"])  # whose stages tests/test_plane_products.py looks at
    assert "constexpr int BLOCKS_A_SM = BLOCK > 64 ? 1 : 2;" in planes
    assert "constexpr int WARPS_M = 2, WARPS_N = 4;" in planes
    for name in ("bias_backward.cu", "sigmoid_bias_backward.cu"):
        assert "ROWS_IN_FLIGHT = VECTOR > 4 ? 2 : 4;" in read(FILES[name])


def test_shared_memory_is_what_the_contract_states(kernel_file: Path) -> None:
    """The static shared memory of every instantiation, in the gate's table, is the formula's."""
    shared = contract(read(kernel_file))[1]["shared"]
    rows = {one: row for one, row in ROWS.items() if one.stem == kernel_file.stem}
    assert rows
    for subject, row in rows.items():
        assert row["shared_bytes"] == shared_bytes(shared, subject.macros, subject.kernel), subject


def shared_bytes(field: str, macros: str, kernel: str = "") -> int:
    """Compute it from the field, or from what follows the kernel's name and a colon in it."""
    field = next((part for part in field.split("; ") if part.startswith(f"{kernel}: ")), field)
    field = field.removeprefix(f"{kernel}: ")
    if field == "none" or DYNAMIC.fullmatch(field):
        return 0
    match = re.fullmatch(r"([\w ×+()]+) accumulators, static", field)
    assert match, f"shared: neither none nor `<product> accumulators, static`: {field}"
    return value(match[1], macros, kernel) * (8 if "ELEMENT_F64" in macros else 4)


def value(product: str, macros: str, kernel: str) -> int:
    """Compute a product of numbers, VECTOR, TILE, and what else the kernel's header knows."""
    size = 8 if "ELEMENT_F64" in macros else 2 if "16" in macros.split()[0] else 4
    names = {"VECTOR": 16 // size, **{name: number(name, macros) for name in ("TILE", "PLANES")}}
    of_kernel = wgmma if kernel.endswith("_wgmma") else mma
    names["BLOCK_K"], names["STAGES"] = of_kernel.stages(names["TILE"], names["PLANES"])
    dtype = "float32" if "ELEMENT_F32" in macros else "bfloat16"
    key = (dtype, "mma" if dtype == "bfloat16" or "PLANES=3" in macros else "ffma")
    sizes = {tile: (inputs, rows) for tile, inputs, rows, _ in FUSED[key]}
    names["INPUTS"], names["ROWS"] = sizes.get(names["TILE"], (0, 0))
    names["DX_ROWS"] = names["ROWS"] * (names["PLANES"] == 1)
    product = re.sub(r"[A-Z]\w*", lambda name: str(names[name[0]]), product).replace("×", "*")
    assert re.fullmatch(r"[\d *+()]+", product)
    return int(eval(product))


def number(name: str, macros: str) -> int:
    """Give the value of a macro, or what it is without one: PLANES=1."""
    match = re.search(rf"\b{name}=(\d+)", macros)
    return int(match[1]) if match else 1


def test_dynamic_shared_memory_is_what_the_package_asks_for(kernel_file: Path) -> None:
    stated = DYNAMIC.fullmatch(contract(read(kernel_file))[1]["shared"])
    words = kernel_file.stem.rsplit("_", 2)
    asked = ASKED.get("_".join(words[1:])) or ASKED.get(words[-1])
    assert bool(stated) == bool(asked)
    for stem, macros in INSTANTIATIONS:
        if stated and asked and stem == kernel_file.stem:
            assert value(stated[1], " ".join(macros), stem) == asked(" ".join(macros))


def test_alignment_is_stated_where_packs_are_moved(kernel_file: Path) -> None:
    """A kernel with a flag `packed` says what it requires of the strides and the alignment."""
    text = read(kernel_file)
    flags = [one for kernel in kernels(text) for one in kernel.parameters if "packed" in one]
    if flags:
        assert "packed" in resolved(kernel_file.stem, "requires")
        assert "align" in resolved(kernel_file.stem, "requires")


def test_no_product_of_extents_is_computed_in_32_bits(file: Path) -> None:
    assert "typedef long long Offset;" in read(FILES["element.cuh"])
    assert faults_of_offsets(read(file)) == []


def test_inline_ptx_is_in_one_file(file: Path) -> None:
    if file.name != "ptx.cuh":
        assert not re.search(r"\b(__)?asm(__)?\b", code(read(file)))


def test_no_atomics(file: Path) -> None:
    assert not re.search(r"atomic|\b__reduce_\w+", code(read(file)), re.IGNORECASE)


def test_no_fast_math(file: Path) -> None:
    assert not FAST_MATH.search(code(read(file)))


def test_no_fast_math_in_the_options() -> None:
    for path in Path(gpugrad.__file__).parent.rglob("*.py"):
        assert not FAST_MATH.search(read(path)), path.name


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.stem)
def test_headers_are_included_and_only_once(header: Path) -> None:
    assert "#pragma once" in read(header).splitlines()
    assert read(header).startswith("// "), "a header says what it is for"
    including = [stem for stem in source.stems() if f'"{header.name}"' in source.expand(stem)]
    assert including, "no kernel includes it"


# The checks themselves see what they are for.

PLANTED = """
extern "C" __global__ void __launch_bounds__(THREADS) planted(Element* p, Offset n, {parameter}) {
  {statement}
}
"""


@pytest.mark.parametrize(
    ("parameter", "statement", "fault"),
    [
        ("int accumulate", "Offset i = Offset(blockIdx.x) * THREADS;", ""),
        ("int dy_packed", "const Offset i = blockIdx.y * n; // int i = n * 2;", ""),
        ("int b_along", "const int tiles = int((n + 63) / 64), odd = tiles % 2;", ""),
        ("int m", "", "planted: parameter int m"),
        ("unsigned row_stride", "", "planted: parameter unsigned row_stride"),
        ("int packed", "int rows = 3;", "int rows"),
        ("int packed", "const int i = threadIdx.x * n;", "int from threadIdx.x * n"),
        ("int packed", "p[int(n * 2)] = 0;", "int from (n * 2)"),
        ("int packed", "const Offset i = blockIdx.x * THREADS;", "blockIdx * THREADS"),
        ("int packed", "const Offset i = 4 * blockIdx.x;", "blockIdx * 4"),
    ],
)
def test_planted_products_of_32_bits_are_found(parameter: str, statement: str, fault: str) -> None:
    text = PLANTED.replace("{parameter}", parameter).replace("{statement}", statement)
    found = faults_of_offsets(text)
    assert fault in found if fault else found == []


@pytest.mark.parametrize(
    "text", ["__expf(x)", "__fdividef(a, b)", "ex2.approx", "use_fast_math=True", "-ftz=true"]
)
def test_fast_math_is_recognised(text: str) -> None:
    assert FAST_MATH.search(text)


@pytest.mark.parametrize("text", ["expf(x)", "__half2float(x)", "ftz=False", "fmaf(a, b, c)"])
def test_exact_arithmetic_is_not_taken_for_fast_math(text: str) -> None:
    assert not FAST_MATH.search(text)


HEAD = """// planted: y = x, in words
// that go on.
//
// shapes    x: (n,)
// launch    grid (1), block (256);
//           and so on
code
"""


def test_a_contract_is_read() -> None:
    title, fields = contract(HEAD)
    assert title == "planted: y = x, in words that go on."
    assert fields == {"shapes": "x: (n,)", "launch": "grid (1), block (256); and so on"}
    with pytest.raises(AssertionError, match="not a field"):
        contract(HEAD.replace("// launch  ", "//launch"))


def test_shared_memory_is_computed_from_the_contract() -> None:
    assert shared_bytes("VECTOR × 256 accumulators, static", "ELEMENT_BF16 RESULT_F32") == 8192
    assert shared_bytes("4 × (TILE + 4) accumulators, static", "ELEMENT_F64 TILE=64") == 2176
    assert shared_bytes("none", "ELEMENT_F32") == 0
    stages = "STAGES × PLANES × BLOCK_K × TILE × 4"
    assert value(stages, "ELEMENT_F32 PLANES=3 TILE=128", "x_mma") == 4 * 3 * 16 * 128 * 4
    assert value(stages, "ELEMENT_BF16 TILE=64", "x_mma") == 3 * 1 * 64 * 64 * 4
    assert value(stages, "ELEMENT_BF16 TILE=128", "x_wgmma") == 6 * 1 * 64 * 128 * 4
    assert shared_bytes("2 × TILE bytes, dynamic", "ELEMENT_F32 TILE=64") == 0
    assert shared_bytes("a: none; b: 8 accumulators, static", "ELEMENT_F32", "b") == 32
    with pytest.raises(AssertionError, match="shared: neither"):
        shared_bytes("some", "ELEMENT_F32")
