"""The operations in NumPy: one module an operation, the reference for the kernels."""
