"""WORDS: text and token ids, harmony, and the grammars that hold an answer to a form.

Knows engine/ (a constraint is the engine's protocol), is known by server/.
"""
