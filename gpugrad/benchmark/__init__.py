"""Timing gpugrad beside other libraries: one timer, one table of peers, sizes and figures."""
