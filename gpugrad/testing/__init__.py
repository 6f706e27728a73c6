"""Exact references and error bounds for gpugrad's operations."""
