"""The headers that we write, as token ids: one spelling for prompts and for grammars.

A call that a grammar allowed and the same call in a later prompt are then the same tokens, and the prefix
cache finds them.  Headers that the model writes by itself are read in header.py.
"""

from __future__ import annotations

from language.harmony.messages import Call, Tool
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

    def call(self, to: Tool | Call) -> list[int]:
        """`<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>`

        Where the body is text, no type stands there; only Python's is `code`.
        """
        address = f"{to.channel} to={to.recipient}"
        type = ("code" if to.builtin else "") if to.text else "json"
        if not type:
            return [self.channel, *self._encode(address), self.message]
        return [
            self.channel,
            *self._encode(f"{address} "),
            self._constrain,
            *self._encode(type),
            self.message,
        ]
