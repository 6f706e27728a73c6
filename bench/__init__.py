"""Measurements of gpugrad: `python -m bench.on_gpu` runs all of them on a GPU machine."""
