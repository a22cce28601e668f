"""Weights: from a checkpoint's files to tensors on a device."""
