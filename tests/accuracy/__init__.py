"""Errors of matrix products against float64, of every precision class on data of many kinds."""
