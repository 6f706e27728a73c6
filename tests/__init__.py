"""Tests of gpugrad: one body for every backend, against bounds that gpugrad.reference derives."""
