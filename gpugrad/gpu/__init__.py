"""The operations as CUDA kernels: source, compiler, cache and launch; one module an operation."""
