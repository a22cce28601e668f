"""Text and token ids, the harmony format, and constrained decoding.

Imports engine/ (constraints implement the engine's protocol) and model/; is imported by server/ and gptoss/.
"""
