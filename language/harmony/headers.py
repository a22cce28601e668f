"""The headers that we write, as token ids: one spelling for prompts and for grammars.

A call that a grammar allowed and the same call in a later prompt are then the same tokens, and the prefix
cache finds them.  Headers that the model writes by itself are read in header.py.
"""

from __future__ import annotations

from language.tokenizer import Tokenizer


class Headers:
    """Harmony's fixed parts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.start = tokenizer.special("<|start|>")
        self.channel = tokenizer.special("<|channel|>")
        self.message = tokenizer.special("<|message|>")
        self.end = tokenizer.special("<|end|>")
        self._constrain = tokenizer.special("<|constrain|>")
        self.return_ = tokenizer.special("<|return|>")
        self.call_ = tokenizer.special("<|call|>")
        self.final = self.opening("final")
        self.next_message = [self.end, self.start, *self._encode("assistant")]

    def opening(self, channel: str) -> list[int]:
        """`<|channel|>{channel}<|message|>`"""
        return [self.channel, *self._encode(channel), self.message]

    def call(self, name: str) -> list[int]:
        """`<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>`"""
        recipient = self._encode(f"commentary to=functions.{name} ")
        return [self.channel, *recipient, self._constrain, *self._encode("json"), self.message]
