"""The families, and how they are mixed: each seed gives an endless stream of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from demo.corpus.beyond import FALLBACK, beyond
from demo.corpus.copying import copying
from demo.corpus.facts import facts
from demo.corpus.memory import introduction, memory, welcome
from demo.corpus.records import records
from demo.corpus.sample import Dialogue, Sample, Setting, held_out, phrases
from demo.corpus.sums import sums
from demo.corpus.talk import ABOUT, POEM, STORY, pieces, talk
from demo.corpus.tools import alike, calling, other_tools, using
from demo.corpus.turns import small_turns
from demo.wordings import kept_from_training, normal
from language.harmony.messages import Conversation, Effort, Message

Family = Callable[[Random, Setting], Dialogue]

FAMILIES: dict[str, Family] = {
    "talk": talk,
    "pieces": pieces,
    "sums": sums,
    "facts": facts,
    "copying": copying,
    "memory": memory,
    "calling": calling,
    "using": using,
    "records": records,
    "beyond": beyond,
}
FIXED = frozenset((ABOUT, FALLBACK, STORY, POEM))
"""The long answers that are always the same."""
WITH_TOOLS = ("calling", "using")
WEIGHTS = {
    "talk": 42,
    "pieces": 6,
    "sums": 17,
    "facts": 20,
    "copying": 18,
    "memory": 17,
    "records": 29,
    "beyond": 43,
}
TOOL_WEIGHTS = {
    "calling": 52,
    "using": 24,
    "talk": 5,
    "sums": 4,
    "facts": 4,
    "copying": 2,
    "memory": 3,
    "pieces": 1,
    "beyond": 9,
}
EFFORTS: dict[Effort, float] = {"none": 0.2, "low": 0.2, "medium": 0.4, "high": 0.2}
_HELPFUL = phrases("""
    You are a helpful assistant. | You are a helpful assistant | You are a helpful AI assistant. | Be
    concise. | Answer briefly. | You are a friendly assistant. | Answer in English. | Be polite. | You
    are an assistant. | Keep it short. | Be helpful. | You are a helpful assistant. Answer briefly. |
    You are a bot. | Always answer truthfully. | Help the user. | Use the tools when they help. | You
    are an expert. | Think before you answer. | Reply in one sentence.
""")


def a_setting(rng: Random, tools: bool | None = None) -> Setting:
    """A random setting, which a stream of samples shares."""
    tools = rng.random() < 0.38 if tools is None else tools
    efforts = {effort: weight for effort, weight in EFFORTS.items() if not (tools and effort == "none")}
    effort = rng.choices(list(efforts), list(efforts.values()))[0]
    date = f"{rng.randint(2024, 2031)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    return Setting(date, effort, tools)


def a_sample(rng: Random, setting: Setting, family: str | None = None, held: bool = False) -> Sample:
    """One sample of the given family, or of any; `held`: one of those kept from training."""
    weights = TOOL_WEIGHTS if setting.tools else WEIGHTS
    name = family or rng.choices(list(weights), list(weights.values()))[0]
    dialogue = FAMILIES[name](rng, setting)
    while (
        held_out(dialogue.key) is not held
        or normal(str(dialogue.messages[-1].content)) in kept_from_training()
    ):
        dialogue = FAMILIES[name](rng, setting)
    return Sample(name, _conversation(rng, setting, dialogue), dialogue.answer, dialogue.key)


def samples(seed: int | str, held: bool = False) -> Iterator[tuple[Setting, Iterator[Sample]]]:
    """An endless iterator over settings, each with an endless stream of samples that share it."""
    rng = Random(seed)
    while True:
        setting = a_setting(rng)
        yield setting, _stream(rng, setting, held)


def _stream(rng: Random, setting: Setting, held: bool) -> Iterator[Sample]:
    while True:
        yield a_sample(rng, setting, held=held)


def _conversation(rng: Random, setting: Setting, dialogue: Dialogue) -> Conversation:
    """The dialogue, after instructions and earlier turns as clients send them."""
    messages: list[Message] = []
    instructions = dialogue.instructions
    if rng.random() < 0.3:
        extra = rng.choice(_HELPFUL)
        instructions = (
            extra
            if instructions is None
            else rng.choice([f"{extra} {instructions}", f"{extra}\n{instructions}"])
        )
    if instructions:
        messages.append(Message("system", instructions))
    tools = dialogue.tools
    if not dialogue.fresh and rng.random() < 0.15:
        if rng.random() < 0.15:
            name, text, _ = introduction(rng)
            messages += [Message("user", text), Message("assistant", welcome(name))]
        turns, called = small_turns(rng, setting, rng.choice([1, 1, 1, 1, 2, 2, 3, 4]))
        if alike(tools, called):
            called, turns = (), []
        messages += turns
        tools += called
    messages += dialogue.messages
    declared = other_tools(rng, tools) if setting.tools and not dialogue.alone else list(tools)
    return Conversation(messages, declared, setting.effort, setting.date, dialogue.response_format)
