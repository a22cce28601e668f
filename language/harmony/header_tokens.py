"""The headers that we write, as token ids: the same ones in prompts and in grammars.

So a call that a grammar forced has the same tokens when it appears in a later prompt, and the prefix cache
finds them.  Headers that the model writes freely are parsed in sampled_header.py.
"""

from __future__ import annotations

from language.harmony.messages import Call, Tool
from language.tokenizer import Tokenizer


class HeaderTokens:
    """The fixed parts of the harmony format."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.start = tokenizer.special("<|start|>")
        self.channel = tokenizer.special("<|channel|>")
        self.message = tokenizer.special("<|message|>")
        self.end = tokenizer.special("<|end|>")
        self._constrain = tokenizer.special("<|constrain|>")
        self.return_ = tokenizer.special("<|return|>")
        self.call_ = tokenizer.special("<|call|>")
        self.end_of_text = tokenizer.special("<|endoftext|>")
        self.final = self.opening("final")
        self.next_message = [self.end, self.start, *self._encode("assistant")]

    def opening(self, channel: str) -> list[int]:
        """`<|channel|>{channel}<|message|>`"""
        return [self.channel, *self._encode(channel), self.message]

    def call(self, to: Tool | Call) -> list[int]:
        """`<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>`

        A body that is text has no type, except Python's, which is `code`.
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
