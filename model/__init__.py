"""TENSORS: gpt-oss from scratch in PyTorch.  Knows nobody above it."""
