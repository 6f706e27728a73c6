"""Plot the sigmoid's gradient where the sigmoid is saturated, by PyTorch and by this library.

    python examples/saturation.py [--output saturation.png]

σ'(z) = σ(z) (1 − σ(z)) is computed from y = σ(z) alone, which is cheap. But where y has rounded to
1, 1 − y is 0: a unit that is wrong and sure of it learns nothing any more. From the logits,
σ'(z) = σ(z) σ(−z), which loses nothing.
"""

import argparse
import functools
import sys
from pathlib import Path

try:
    import torch
    from matplotlib.figure import Figure

    import gpugrad.torch
except ImportError as error:
    print(f"saturation: {error}; pip install '.[demo,torch]' brings it", file=sys.stderr)
    sys.exit(2)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FROM_Y = gpugrad.torch.sigmoid
FROM_LOGITS = functools.partial(FROM_Y, save_logits=True)
LARGEST, POINTS = 20.0, 2001
LOWEST = 1e-9  # that is drawn
ENOUGH = 4  # times the dtype's precision, by which a gradient from the logits may be wrong
INK, MUTED, EXACT, THEIRS, OURS = "#1f2933", "#7b8794", "#d5dbe1", "#c2410c", "#0f5fa8"
STYLES = {  # those that coincide are drawn over each other, the narrow one dashed
    "exact": {"color": EXACT, "linewidth": 9, "solid_capstyle": "butt"},
    "gpugrad from the logits": {"color": OURS, "linewidth": 2.2},
    "PyTorch's autograd": {"color": THEIRS, "linewidth": 2.2},
    "gpugrad from y": {"color": INK, "linewidth": 1.3, "linestyle": (0, (2, 2))},
}


def gradient(sigmoid, z):
    """Return σ'(z) by autograd, as float64."""
    z = z.detach().requires_grad_()
    (dz,) = torch.autograd.grad(sigmoid(z), z, torch.ones_like(z))
    return dz.double()


def exact(z):
    """Return σ'(z) for z as it is, rounded to its dtype, from float64."""
    wide = z.double()
    return torch.sigmoid(wide) * torch.sigmoid(-wide)


def compare(dtype):
    """Return z, its gradients by name, from where PyTorch's is 0, and the error of the logits'."""
    z = torch.linspace(0, LARGEST, POINTS).to(dtype)
    gradients = (exact(z), *(gradient(one, z) for one in (FROM_LOGITS, torch.sigmoid, FROM_Y)))
    right, ours, theirs, _ = gradients
    zero_from = z[theirs == 0].min().item()
    normal = right >= torch.finfo(dtype).tiny  # smaller numbers have fewer digits
    error = (ours / right - 1).abs()[normal].max().item()
    return z.double(), dict(zip(STYLES, gradients, strict=True)), zero_from, error


def draw(path, results):
    """Draw a panel for each dtype."""
    figure = Figure(figsize=(13, 5), dpi=150, facecolor="white")
    title = "The sigmoid's gradient where the sigmoid is saturated"
    figure.suptitle(title, x=0.06, y=0.96, ha="left", color=INK, fontsize=15, fontweight="bold")
    panels = figure.subplots(1, len(results), sharey=True)
    figure.subplots_adjust(left=0.06, right=0.98, top=0.75, bottom=0.12, wspace=0.1)
    for axes, (dtype, (z, found, zero_from, _)) in zip(panels, results.items(), strict=True):
        for name, values in found.items():
            axes.plot(z, values.where(values > 0, torch.nan), label=name, **STYLES[name])
        last = found["PyTorch's autograd"][z < zero_from].min()
        axes.plot([zero_from] * 2, [last, LOWEST], color=THEIRS, linewidth=1.5, linestyle=":")
        note = f"PyTorch's is 0\nfrom z = {zero_from:.4g}"
        axes.text(zero_from - 0.3, 2 * LOWEST, note, ha="right", color=THEIRS)
        if dtype is torch.float16:
            axes.text(LARGEST, 2e-7, "its smallest\nnumber", ha="right", color=OURS)
        axes.set(yscale="log", ylim=(LOWEST, 1), xlim=(0, LARGEST), xticks=range(0, 21, 5))
        axes.set_xlabel("z", color=MUTED)
        axes.set_title(str(dtype).removeprefix("torch."), loc="left", color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(which="both", colors=MUTED)
        axes.grid(color=MUTED, alpha=0.15)
    panels[0].set_ylabel("σ′(z)", color=MUTED)
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0.053, 0.91),
        ncols=len(STYLES),
        frameon=False,
        labelcolor=INK,
        handlelength=2.6,
    )
    figure.savefig(path, format="png")


def main():
    """Compare, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("saturation.png"), help="the picture")
    options = parser.parse_args()
    results = {dtype: compare(dtype) for dtype in DTYPES}
    try:
        draw(options.output, results)
    except OSError as error:
        print(f"saturation: --output: {error}", file=sys.stderr)
        sys.exit(2)

    for dtype, (_, _, zero_from, error) in results.items():
        name = str(dtype).removeprefix("torch.")
        print(f"{name:8}  PyTorch's gradient is 0 from z = {zero_from:<5.4g}  ", end="")
        print(f"gpugrad's from the logits is right within {error:.0e} of itself")
    print(options.output)
    if any(error > ENOUGH * torch.finfo(dtype).eps for dtype, (*_, error) in results.items()):
        sys.exit(f"saturation: expected at most {ENOUGH} times the dtype's precision")


if __name__ == "__main__":
    main()
