"""The speed of the Triton backend on a GPU (`python -m bench.gpu`), and what its kernels compile to, which
needs no GPU (`python -m bench.gpu.compile`).
"""
