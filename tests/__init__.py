"""Tests of gpugrad: one body for every backend, against bounds of gpugrad.testing."""
