"""Earlier turns, on other subjects than the last one."""

from __future__ import annotations

from random import Random

from demo.corpus.beyond import beyond
from demo.corpus.copying import copying
from demo.corpus.facts import facts
from demo.corpus.records import records
from demo.corpus.sample import Setting, held_out
from demo.corpus.sums import sums
from demo.corpus.talk import talk
from demo.corpus.tools import a_wish, used
from language.harmony.messages import Message, Tool


def small_turns(rng: Random, setting: Setting, count: int) -> tuple[list[Message], tuple[Tool, ...]]:
    """Questions and answers that are not held out, and the functions that they call."""
    turns: list[Message] = []
    tools: tuple[Tool, ...] = ()
    for _ in range(count):
        if setting.tools and not tools and rng.random() < 0.25:
            wish = a_wish(rng)
            turns += used(rng, setting, wish)
            tools = (wish.tool,)
        else:
            turns += _small_turn(rng, setting)
    return turns, tools


def _small_turn(rng: Random, setting: Setting) -> list[Message]:
    family = rng.choice([talk, sums, facts, copying, beyond, records])
    dialogue = family(rng, setting)
    while held_out(dialogue.key) or len(dialogue.messages) > 1:
        dialogue = family(rng, setting)
    return [*dialogue.messages, Message("assistant", dialogue.answer.final)]
