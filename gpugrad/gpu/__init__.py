"""The operations as CUDA kernels: source, compiler, cache and launches; a module per operation."""
