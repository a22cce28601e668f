"""Token ids: continuous batching over a paged KV cache.

Imports model/; is imported by language/, server/ and gptoss/.  Knows no text.
"""
