"""Tensors: gpt-oss from scratch in PyTorch.  Imports no other package of the project."""
