"""How fast the Triton backend is on a GPU (`python -m bench.gpu`), and how its kernels compile without one
(`python -m bench.gpu.compile`)."""
