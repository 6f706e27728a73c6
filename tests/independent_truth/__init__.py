"""What the emulator and the kernels believe together, against sources that share nothing of theirs.

Layouts against the CuTe headers, rounding against products that an H200 computed, and the protocol
of the pipeline of kernels/gemm_wgmma.cuh against a model of its own.
"""
