"""Sizes of layers by name: rows of a batch × inputs × outputs."""

from gpugrad.testing.operations import Size

PRESETS: dict[str, Size] = {
    "digits": (32, 64, 64),  # the first layer of `gpugrad demo`, a batch of it
    "mnist": (128, 784, 512),  # 28 × 28 pixels into 512 hidden units, a batch of 128
    "dlrm": (2048, 512, 256),  # DLRM's top MLP 512-256-1 (Naumov et al. 2019), batch 2048
    "gpt2": (1024, 768, 3072),  # GPT-2 small's MLP: 1024 tokens, 768 wide, 4 · 768 hidden
    "tabular": (1_000_000, 64, 64),  # a table's million rows through 64 features: skinny
    "tall": (200_000, 128, 128),  # the same, not as skinny
    "square": (4096, 1024, 1024),  # products alone count
    "tiny": (64, 64, 64),  # the cost of a call alone counts
}
DEFAULT = ("tiny", "digits", "mnist", "dlrm", "gpt2", "tabular")


def name_of(wanted: Size) -> str | None:
    """Return the name of a size that has one."""
    return next((name for name, one in PRESETS.items() if one == wanted), None)
