"""TOKENS: continuous batching over paged keys and values.

Knows model/, is known by server/, speaks only token ids.
"""
