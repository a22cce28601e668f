"""The tokens whose logits one request changes: by penalties, by biases, and stop tokens that are not allowed
yet.

Penalties depend on how often each token has occurred.  Each sequence has one list of these tokens and updates
it token by token, so that a step only has to concatenate the lists (engine/sampling.py).
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Mapping

from model.logit_edits import BIAS, COUNT, PROMPT, TOKEN


class EditRecords:
    """The tokens whose logits one request changes, each once.

    flat  four numbers for each of them, as in `model.logit_edits.Edits.records`
    """

    def __init__(
        self,
        penalised: Iterable[int],
        biases: Mapping[int, float],
        stops: frozenset[int],
        first_counted: int | None,
    ):
        """
        penalised      tokens of the prompt that have the repetition penalty
        biases         token → number that is added to its logit
        stops          tokens that `update` may withhold
        first_counted  index of the answer's first token, from which tokens are counted; None: no counts are
                       needed
        """
        prompt = dict.fromkeys(penalised)
        self._stops = stops
        self._biases = biases
        self._counted = first_counted  # tokens [:_counted] need no more counting
        self._withholds = False
        tokens = dict.fromkeys((*prompt, *biases, *stops))
        self._places = {token: 4 * n for n, token in enumerate(tokens)}
        self.flat = array("i", bytes(16 * len(tokens)))
        self.flat[TOKEN::4] = array("i", tokens)
        self.flat[PROMPT : 4 * len(prompt) : 4] = array("i", [1]) * len(prompt)
        for token, bias in biases.items():
            self.flat[self._places[token] + BIAS] = _bits(bias)

    def update(self, tokens: list[int], withholds: bool) -> None:
        """Count the new tokens, and withhold stop tokens or allow them.

        tokens     the prompt, and the answer so far
        withholds  whether stop tokens are not allowed yet
        """
        if withholds != self._withholds:
            self._withholds = withholds
            for token in self._stops:
                bias = -math.inf if withholds else self._biases.get(token, 0.0)
                self.flat[self._places[token] + BIAS] = _bits(bias)
        if self._counted is None:
            return
        for token in tokens[self._counted :]:
            place = self._places.setdefault(token, len(self.flat))
            if place == len(self.flat):
                self.flat.extend((token, 0, 0, 0))
            self.flat[place + COUNT] += 1
        self._counted = len(tokens)


def _bits(number: float) -> int:
    """The bits of a float32, as an int32."""
    bits: int = struct.unpack("i", struct.pack("f", number))[0]
    return bits
