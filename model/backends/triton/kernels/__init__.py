"""The Triton kernels, each with its launch, and most with their plain version beside them."""
