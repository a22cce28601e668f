"""What the requests of a step want changed in their logits, put together for the device.

Penalties need to know how often each token has come.  Each sequence keeps a list of all tokens whose logits
it changes, and brings it up to date token by token, so that a step only lays the lists end to end.
"""

from __future__ import annotations

import math
import struct
from array import array
from typing import TYPE_CHECKING

from engine.errors import ConstraintFailed, EngineError
from model.logit_edits import BIAS, COUNT, PROMPT, TOKEN, Edits, upload

if TYPE_CHECKING:
    from engine.request import Request, Sequence
    from model.transfer import Link

NOTHING = array("i")


class Records:
    """The tokens whose logits one request changes, each once.

    flat  four numbers for each of them, as in `model.logit_edits.Edits.records`
    """

    def __init__(self, request: Request):
        params = request.sampling
        prompt = dict.fromkeys(request.prompt) if params.repetition_penalty != 1 else {}
        self._stops = request.stop_tokens if request.min_tokens else frozenset()
        self._biases = params.logit_bias
        self._start = len(request.prompt)
        self._counted = 0 if params.penalises else None  # tokens of the answer
        self._withholds = False
        tokens = dict.fromkeys((*prompt, *self._biases, *self._stops))
        self._places = {token: 4 * n for n, token in enumerate(tokens)}
        self.flat = array("i", bytes(16 * len(tokens)))
        self.flat[TOKEN::4] = array("i", tokens)
        self.flat[PROMPT : 4 * len(prompt) : 4] = array("i", [1]) * len(prompt)
        for token, bias in self._biases.items():
            self.flat[self._places[token] + BIAS] = _bits(bias)

    def update(self, tokens: list[int], withholds: bool) -> None:
        """`tokens` are prompt and answer so far; `withholds`: whether stop tokens cannot come yet."""
        if withholds != self._withholds:
            self._withholds = withholds
            for token in self._stops:
                bias = -math.inf if withholds else self._biases.get(token, 0.0)
                self.flat[self._places[token] + BIAS] = _bits(bias)
        if self._counted is None:
            return
        for token in tokens[self._start + self._counted :]:
            place = self._places.setdefault(token, len(self.flat))
            if place == len(self.flat):
                self.flat.extend((token, 0, 0, 0))
            self.flat[place + COUNT] += 1
        self._counted = len(tokens) - self._start


def _bits(number: float) -> int:
    """Of a float32, as an int32."""
    bits: int = struct.unpack("i", struct.pack("f", number))[0]
    return bits


def edits(
    sequences: list[Sequence], size: int, link: Link, errors: dict[str, EngineError], ahead: int = 0
) -> Edits | None:
    """What changes the logits of a row for each sequence, of `size` tokens each; None if nothing does.

    errors  where constraints that fail are noted: request id → why
    ahead   tokens of each that come before the one to be chosen, and are not known yet
    """
    if not any(sequence.edits for sequence in sequences):
        return None
    masks = _masks(sequences, size, errors)
    records = [_records(sequence, ahead) for sequence in sequences]
    if not masks and all(each is None for each in records):
        return None
    all_params = [sequence.request.sampling for sequence in sequences]
    penalties = [(p.repetition_penalty, p.presence_penalty, p.frequency_penalty) for p in all_params]
    return upload(link, [each or NOTHING for each in records], penalties, masks)


def _records(sequence: Sequence, ahead: int) -> array[int] | None:
    """The sequence's records up to date; None if they change nothing."""
    request, params = sequence.request, sequence.request.sampling
    # A constraint may allow nothing but the end.
    withholds = sequence.answered + ahead < request.min_tokens and request.constraint is None
    if not withholds and not params.logit_bias and not params.penalises:
        return None
    if sequence.records is None:
        sequence.records = Records(request)
    sequence.records.update(sequence.tokens, withholds)
    return sequence.records.flat


def _masks(
    sequences: list[Sequence], size: int, errors: dict[str, EngineError]
) -> dict[int, memoryview | bytes]:
    """Row → its mask, in whole words for `size` tokens."""
    masks: dict[int, memoryview | bytes] = {}
    num_bytes = 4 * -(-size // 32)
    for row, sequence in enumerate(sequences):
        if sequence.request.constraint is None or sequence.ended:
            continue
        try:
            words = sequence.request.constraint.mask()
        except Exception as error:  # not our code: its request ends, the others go on
            errors[sequence.request.id] = ConstraintFailed(str(error))
            continue
        if words is not None:
            octets = words.cast("B")[:num_bytes]
            masks[row] = octets if len(octets) == num_bytes else bytes(octets).ljust(num_bytes, b"\0")
    return masks
