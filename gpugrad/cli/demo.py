"""gpugrad demo: train a sigmoid network on handwritten digits with this library."""

import argparse
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape

from gpugrad import dispatch
from gpugrad.arrays import kinds
from gpugrad.benchmark import output, units
from gpugrad.cli import arguments as numbers
from gpugrad.cli import digits, exits, picture, terminal
from gpugrad.cli.devices import devices, why_no_gpu
from gpugrad.testing import operations

EPOCHS = 60
EXPECTED = 0.97  # accuracy on unseen digits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--epochs",
        type=numbers.count,
        default=EPOCHS,
        help=f"passes over the digits ({EPOCHS}, after which at least {EXPECTED:.0%}% "
        "of unseen digits must be read)",
    )
    parser.add_argument(
        "--seed", type=numbers.seed, default=0, help="of the weights, batches and parts (0)"
    )
    parser.add_argument(
        "--device",
        choices=dispatch.DEVICES,
        default="auto",
        help="where to train; auto is GPUGRAD_DEVICE, or else the GPU where there is one",
    )
    parser.add_argument(
        "--dtype", choices=kinds.DTYPES, default="float32", help="of the layers (float32)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("digits.png"), help="the picture (digits.png)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, draw the picture, print the results."""
    device = devices(arguments.device)[-1]
    dtype = operations.dtype_of(arguments.dtype)
    _expect_requirements()
    if arguments.output.suffix.lower() != ".png":
        raise exits.Unusable(f"--output: {arguments.output} does not end in .png")
    with output.reserved(arguments.output) as write:
        learnt, unseen = digits.load(arguments.seed)
        network = digits.Network(device, dtype, seed=arguments.seed, epochs=arguments.epochs)
        start = time.perf_counter()
        epochs = _train(network, learnt, unseen)
        seconds = time.perf_counter() - start
        read = network.read(unseen.x)
        facts = {
            "device": device,
            "reason": _why(arguments.device, device),
            "dtype": dtype.name,
            "seed": arguments.seed,
            "epochs": len(epochs),
            "loss": epochs[-1].loss,
            "train_accuracy": float((network.read(learnt.x) == learnt.labels).mean()),
            "test_accuracy": float((read == unseen.labels).mean()),
            "unseen": len(unseen.labels),
            "seconds": seconds,
            "gradient_seconds": network.gradient_time.total,
            "curve": [{"loss": one.loss, "test_accuracy": one.accuracy} for one in epochs],
            "output": str(arguments.output),
        }
        title = f"Digits read by 64 → 64 → 10 sigmoids, {dtype.name} on the {device.upper()}"
        write(picture.draw(epochs, unseen, read, title))
    if arguments.json:
        terminal.print_json("demo", facts)
    else:
        terminal.facts(terminal.stdout(), list(_rows(facts)))
    if len(epochs) >= EPOCHS and facts["test_accuracy"] < EXPECTED:
        raise exits.Failed(
            f"{facts['test_accuracy']:.1%} of unseen digits were read, "
            f"expected at least {EXPECTED:.0%}"
        )
    return exits.OK


def _expect_requirements() -> None:
    for module, name in (("sklearn.datasets", "scikit-learn"), ("matplotlib", "Matplotlib")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise exits.Unusable(
                f"{name} is missing ({error}); install it with pip install 'gpugrad[demo]'"
            ) from None


def _train(
    network: digits.Network, learnt: digits.Digits, unseen: digits.Digits
) -> list[digits.Epoch]:
    epochs = []
    with terminal.progress() as progress:
        task = progress.add_task("training", total=network.epochs)
        for epoch in network.learn(learnt, unseen):
            epochs.append(epoch)
            description = f"training, loss {epoch.loss:.4f}"
            progress.update(task, advance=1, description=description, refresh=True)
    return epochs


def _why(wanted: str, device: str) -> str:
    if wanted != "auto":
        return f"--device is {wanted!r}"
    return why_no_gpu() if device == "cpu" else dispatch.runtime().facts(None).name


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "device", f"{facts['device']} ({escape(facts['reason'])})"
    epochs = "1 epoch" if facts["epochs"] == 1 else f"{facts['epochs']} epochs"
    yield "network", f"64 → 64 → 10, {facts['dtype']}, seed {facts['seed']}, {epochs}"
    yield "final loss", f"{facts['loss']:.4f}"
    colour = terminal.GOOD if facts["test_accuracy"] >= EXPECTED else terminal.BAD
    yield "train accuracy", f"{facts['train_accuracy']:.1%}"
    yield (
        "test accuracy",
        f"[{colour}]{facts['test_accuracy']:.1%}[/] of {facts['unseen']} unseen digits",
    )
    gradients = units.seconds(facts["gradient_seconds"])
    yield "time", f"{units.seconds(facts['seconds'])}, of which gradients {gradients}"
    yield "picture", escape(facts["output"])
