"""From plans to launches: CuPy, the kernel cache, graphs."""
