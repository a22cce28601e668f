"""What all APIs have in common: a turn, its answer, and the store of responses and conversations.

turn.py, begin.py, answer.py, continuation.py and choices.py know no JSON: each API reads and writes its own.
"""
