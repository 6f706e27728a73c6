"""Numbers as text: three digits and a unit."""


def seconds(value: float) -> str:
    """Write a time with three digits and a unit."""
    unit, scale = ("s", 1) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("µs", 1e6)
    return f"{digits(value * scale)} {unit}"


def size(count: float) -> str:
    """Write a number of bytes with three digits and a unit."""
    units = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(max(0, len(str(int(count))) - 1) // 3, len(units) - 1)
    return f"{digits(count / 1000**power) if power else count} {units[power]}"


def digits(value: float) -> str:
    """Write a positive number with three digits and no exponent."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def scientific(value: float) -> str:
    """Write a small number with two digits and a short exponent."""
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits
