"""What every kernel file promises at its head is there and true; what none may do is not done."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

import gpugrad
from gpugrad.gpu import source
from gpugrad.planning.instantiations import INSTANTIATIONS
from tests.kernels import compile_gate
from tests.kernels.expected_sass import Subject, constants

KERNELS = sorted(source.directory().glob("*.cu"))
HEADERS = sorted(source.directory().glob("*.cuh"))
FILES = {path.name: path for path in (*KERNELS, *HEADERS)}
FIELDS = ("shapes", "launch", "shared", "requires", "traffic", "order")
MACHINES = ("ffma", "mma", "dmma", "wgmma")  # what the last word of a stem may name
ROWS = compile_gate.read_table(compile_gate.TABLE.read_text("utf-8")).rows

FLAG = re.compile(r"(\w+_)?(k_major|packed)|accumulate(_\w+)?")
FAST_MATH = re.compile(
    r"\b__(expf|exp10f|logf|log2f|log10f|powf|sinf|cosf|sincosf|tanf|tanhf|fdividef|frcp_\w+)\b"
    r"|\bh2?(exp|exp2|exp10|tanh_approx|rcp|rsqrt)\b|\.approx\b|\.ftz\b"
    r"|use_fast_math|fast_math|-ftz=true|ftz=True|prec_(div|sqrt)=(False|false)|fmad=true"
)
DYNAMIC = re.compile(r"([\w ×+()]+) bytes, dynamic")
EXTENTS = re.compile(r"n|m|k|M|N|K|rows|columns|splits|split_length|count|(\w+_)?stride")


class Kernel(NamedTuple):
    bounds: list[str]  # the arguments of __launch_bounds__
    symbol: str
    parameters: list[str]


def code(text: str) -> str:
    """Return a source without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def contract(text: str) -> tuple[str, dict[str, str]]:
    """Return the title and the fields of the comment at the head of a kernel file."""
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
    declared = re.findall(rf"{integer}\s+(\w+)", re.sub(r"template <[^>]*>", "", plain))
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
    """Return a field with the one that it refers to: "as <another stem>"."""
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
        if block != "THREADS":
            names = block.replace(", ", " ")
            asserted = f"{' * '.join(names.split()[::-1])} == THREADS" in read(kernel_file)
            assert asserted or f"{names} = THREADS" in launch, f"({block}): how many threads?"
    for kernel in kernels(read(kernel_file)):
        assert kernel.bounds, f"{kernel.symbol} has no launch bounds"
        assert kernel.bounds[0] == "THREADS"


def test_shared_memory_is_what_the_contract_states(kernel_file: Path) -> None:
    """The static shared memory of every instantiation, in the gate's table, is the formula's."""
    shared = contract(read(kernel_file))[1]["shared"]
    rows = {one: row for one, row in ROWS.items() if one.stem == kernel_file.stem}
    assert rows
    for subject, row in rows.items():
        assert row["shared_bytes"] == shared_bytes(shared, subject), subject


def shared_bytes(field: str, subject: Subject) -> int:
    """Compute it from the field, or from what follows the kernel's name and a colon in it."""
    start = f"{subject.kernel}: "
    field = next((part for part in field.split("; ") if part.startswith(start)), field)
    field = field.removeprefix(start)
    if field == "none" or DYNAMIC.fullmatch(field):
        return 0
    match = re.fullmatch(r"([\w ×+()]+) accumulators, static", field)
    assert match, f"shared: neither none nor `<product> accumulators, static`: {field}"
    return value(match[1], subject) * (8 if "ELEMENT_F64" in subject.macros else 4)


def value(product: str, subject: Subject) -> int:
    """Compute a product of numbers, VECTOR, macros, and what else the kernel's header knows."""
    element, names = subject.macros.split()[0], constants(subject)
    size = 8 if element == "ELEMENT_F64" else 2 if "16" in element else 4
    names = names | {"VECTOR": 16 // size, "DX_ROWS": names.get("ROWS", 0) * (size == 2)}
    product = re.sub(r"[A-Z]\w*", lambda name: str(names[name[0]]), product).replace("×", "*")
    assert re.fullmatch(r"[\d *+()]+", product)
    return int(eval(product))


def test_dynamic_shared_memory_is_what_the_package_asks_for(kernel_file: Path) -> None:
    stated = DYNAMIC.fullmatch(contract(read(kernel_file))[1]["shared"])
    for one in INSTANTIATIONS:
        if one.stem == kernel_file.stem:
            asked = one.configuration.shared_bytes
            assert bool(stated) == bool(asked)
            if stated:
                assert value(stated[1], Subject(one.stem, one.label, one.stem, "")) == asked


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
        ("int b_k_major", "const int tiles = int((n + 63) / 64), odd = tiles % 2;", ""),
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
    def of(stem: str, macros: str, kernel: str = "") -> Subject:
        return Subject(stem, macros, kernel or stem, "")

    sums = of("bias_backward", "ELEMENT_BF16 RESULT_F32")
    assert shared_bytes("VECTOR × 256 accumulators, static", sums) == 8192
    double = of("dense_sigmoid_ffma", "ELEMENT_F64 BLOCK_N=64")
    assert shared_bytes("4 × (BLOCK_N + 4) accumulators, static", double) == 2176
    assert shared_bytes("2 × BLOCK_N bytes, dynamic", double) == 0
    assert shared_bytes("none", sums) == 0
    assert shared_bytes("a: none; b: 8 accumulators, static", sums._replace(kernel="b")) == 32
    stages = "STAGES × PLANES × BLOCK_K × BLOCK_N × 4"
    three = of("dense_sigmoid_mma", "ELEMENT_F32 PLANES=3 BLOCK_N=128")
    assert value(stages, three) == 4 * 3 * 16 * 128 * 4
    one = of("dense_sigmoid_wgmma", "ELEMENT_BF16 PLANES=1 BLOCK_N=128")
    assert value(stages, one) == 6 * 1 * 64 * 128 * 4
    with pytest.raises(AssertionError, match="shared: neither"):
        shared_bytes("some", sums)
