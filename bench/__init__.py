"""Measurements of gpugrad: `python -m bench.on_gpu` on a GPU, `python -m bench.on_cpu` on a CPU."""
