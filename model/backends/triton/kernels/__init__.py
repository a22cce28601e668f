"""The Triton kernels, each with the function that launches it, and most with a plain version in PyTorch."""
