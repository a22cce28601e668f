"""Earlier turns, about something else than the last."""

from __future__ import annotations

from random import Random

from demo.corpus.copying import copying, picking
from demo.corpus.facts import facts
from demo.corpus.sample import Setting, held_out
from demo.corpus.sums import sums
from demo.corpus.talk import beyond, talk
from language.harmony.messages import Message


def small_turn(rng: Random, setting: Setting) -> list[Message]:
    """A question and its answer, never a held-out one."""
    family = rng.choice([talk, sums, facts, copying, beyond, picking])
    dialogue = family(rng, setting)
    while held_out(dialogue.key) or len(dialogue.messages) > 1:
        dialogue = family(rng, setting)
    return [*dialogue.messages, Message("assistant", dialogue.answer.final)]
