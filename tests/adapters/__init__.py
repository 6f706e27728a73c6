"""PyTorch, JAX and autograd."""
