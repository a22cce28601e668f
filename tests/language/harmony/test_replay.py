"""The sampled tokens of a call are replayed, as long as the client has not changed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from language.harmony.messages import Call, Conversation, Message
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from tests.language.harmony.talk import ASK, TIME, assistant, result, text_of, user


def action(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    """Unusual tokens: one for each character."""
    special = set(tokenizer.specials.values())
    tokens = tokenizer.encode_with_specials(text)
    return [t for id in tokens for t in ([id] if id in special else spelled(tokenizer, id))]


def spelled(tokenizer: Tokenizer, id: int) -> list[int]:
    single = {tokenizer.token_bytes(i): i for i in range(tokenizer.size)}
    return [single[bytes([byte])] for byte in tokenizer.token_bytes(id)]


SAMPLED = (
    "<|channel|>analysis<|message|>I must look.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>Wait!<|end|>"
    '<|start|>assistant<|channel|>commentary to=functions.get_weather<|message|>{"city": "Paris"}<|call|>'
)


def contains(tokens: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(tokens[i : i + len(part)]) == list(part) for i in range(len(tokens)))


def test_what_was_sampled_is_replayed_with_its_thoughts(small: Tokenizer) -> None:
    tokens = action(small, SAMPLED)
    history = [user("a"), assistant("Wait!", None, ASK), result("call_1", "s")]
    prompt = Renderer(small).render(Conversation(history), {"call_1": tokens})
    assert contains(prompt, [small.special("<|start|>"), *small.encode("assistant"), *tokens])
    assert small.decode(prompt).count("Wait!") == 1


def test_replay_gives_way_to_what_the_client_says(small: Tokenizer) -> None:
    replay = {"call_1": action(small, SAMPLED)}
    own = text_of(small, Conversation([assistant("Wait!", "my own", ASK)]), replay=replay)
    assert "my own" in own
    assert "I must look." not in own
    assert own.count("Wait!") == 1
    changed = Call("call_1", "get_weather", '{"city": "Rome"}')
    text = text_of(small, Conversation([assistant(None, None, changed)]), replay=replay)
    assert "Rome" in text
    assert "Paris" not in text


def test_replay_leaves_out_the_thoughts_once_an_answer_followed(small: Tokenizer) -> None:
    tokens = action(small, SAMPLED)
    history = [assistant("Wait!", None, ASK), result("call_1", "s"), assistant("Sunny."), user("b")]
    prompt = Renderer(small).render(Conversation(history), {"call_1": tokens})
    text = small.decode(prompt)
    assert "I must look." not in text
    assert text.count("Wait!") == 1
    call = list(tokens)[len(tokens) - 1 - list(tokens)[::-1].index(small.special("<|start|>")) :]
    assert contains(prompt, call)


def test_replay_of_two_calls_and_of_one_that_is_forgotten(small: Tokenizer) -> None:
    second = "<|start|>assistant<|channel|>commentary to=functions.clock<|message|>{}<|call|>"
    history = [assistant("Wait!", None, ASK, TIME), result("call_1", "s"), result("call_2", "9")]
    replay = {"call_1": action(small, SAMPLED), "call_2": action(small, second)}
    whole = text_of(small, Conversation(history), replay=replay)
    assert whole.startswith(f"<|start|>assistant{SAMPLED}{second}<|start|>functions.get_weather")
    del replay["call_1"]
    half = text_of(small, Conversation(history), replay=replay)
    assert half.startswith("<|start|>assistant<|channel|>commentary<|message|>Wait!<|end|>")
    assert f"functions.get_weather <|constrain|>json<|message|>{ASK.arguments}<|call|>{second}" in half


def sampled(tokenizer: Tokenizer, *kinds: str) -> Sequence[int]:
    texts = {
        "think": "<|channel|>analysis<|message|>I must look.<|end|>",
        "more": "<|channel|>analysis<|message|> Now.<|end|>",
        "wait": "<|channel|>commentary<|message|>Wait!<|end|>",
        "ask": '<|channel|>commentary to=functions.get_weather<|message|>{"city": "Paris"}<|call|>',
        "done": "<|channel|>final<|message|>Sunny.<|return|>",
    }
    return action(tokenizer, "<|start|>assistant".join(texts[kind] for kind in kinds))


def items(*kinds: str, call_id: str = "call_1") -> list[Message]:
    """One message for each harmony message, as an API with items has them."""
    messages = {
        "think": assistant(None, "I must look."),
        "more": assistant(None, " Now."),
        "own": assistant(None, "my own"),
        "wait": Message("assistant", "Wait!", preamble=True),
        "ask": assistant(None, None, Call(call_id, "get_weather", '{"city": "Paris"}')),
        "done": assistant("Sunny."),
    }
    return [messages[kind] for kind in kinds]


def starts(messages: list[Message], tokens: Sequence[int]) -> list[Message]:
    return [replace(messages[0], sampled=tokens), *messages[1:]]


ACTIONS = [["think", "ask"], ["ask"], ["think", "wait", "more", "ask"], ["wait", "think", "ask"]]


@pytest.mark.parametrize("kinds", ACTIONS, ids=str)
@pytest.mark.parametrize("route", ["sealed", "by call id", "thoughts dropped", "one message"])
def test_every_route_gives_the_very_tokens(small: Tokenizer, kinds: list[str], route: str) -> None:
    tokens = sampled(small, *kinds)
    after = [result("call_1", "s")]
    replay = {"call_1": tokens}
    match route:
        case "sealed":
            history, replay = starts(items(*kinds), tokens), {}
        case "by call id":
            history = items(*kinds)
        case "thoughts dropped":
            history = items(*(kind for kind in kinds if kind not in ("think", "more")))
        case "one message":
            thought = "".join(each.reasoning or "" for each in items(*kinds)) or None
            history = [assistant("Wait!" if "wait" in kinds else None, thought, ASK)]
    whole = Renderer(small).render(Conversation([user("a"), *history, *after]), replay)
    head = Renderer(small).render(Conversation([user("a")]))
    assert whole[: len(head)] == head
    assert whole[len(head) : len(head) + len(tokens)] == list(tokens)
    assert small.decode(whole[len(head) + len(tokens) :]).startswith("<|start|>functions.get_weather")


def test_actions_that_follow_one_another_are_each_their_own(small: Tokenizer) -> None:
    first, second = sampled(small, "think", "ask"), sampled(small, "more", "ask")
    history = [*items("think", "ask"), *items("more", "ask", call_id="call_2")]
    replay = {"call_1": first, "call_2": second}
    prompts = [Renderer(small).render(Conversation(history), replay)]
    sealed = [*starts(items("think", "ask"), first), *starts(items("more", "ask"), second)]
    prompts.append(Renderer(small).render(Conversation(sealed)))
    prompts.append(Renderer(small).render(Conversation([*sealed[:2], *history[2:]]), {"call_2": second}))
    start = [small.special("<|start|>"), *small.encode("assistant")]
    for prompt in prompts:
        assert contains(prompt, [*start, *first, *start, *second, *start])


def test_an_answer_is_replayed_without_the_thoughts_before_it(small: Tokenizer) -> None:
    tokens = sampled(small, "think", "done")
    history = [*starts(items("think", "done"), tokens), user("b")]
    prompt = Renderer(small).render(Conversation(history))
    spelled_out = sampled(small, "done")[:-1]
    assert contains(prompt, [*spelled_out, small.special("<|end|>"), small.special("<|start|>")])
    assert "I must look." not in small.decode(prompt)
    assert small.special("<|return|>") not in prompt


def test_what_the_client_changed_is_as_the_client_says(small: Tokenizer) -> None:
    tokens = sampled(small, "think", "wait", "ask")
    changed = text_of(small, Conversation(starts(items("own", "wait", "ask"), tokens)))
    assert changed.startswith("<|start|>assistant<|channel|>analysis<|message|>my own<|end|>")
    assert "I must look." not in changed
    only = Conversation([*starts(items("think"), tokens), user("go on")])
    assert contains(Renderer(small).render(only), sampled(small, "think"))
    assert "Wait!" not in text_of(small, only)


def test_what_is_no_proper_harmony_is_never_replayed(small: Tokenizer) -> None:
    for odd in (
        "<|channel|>analysis<|message|>I must look.<|end|><|start|>user<|message|>x",
        "<|channel|>analysis<|message|>I must look.<|end|><|start|>assistantassistant<|channel|>final",
        "<|channel|>analysis",
        "I must look.",
    ):
        text = text_of(small, Conversation(starts(items("think"), action(small, odd))))
        assert text == "<|start|>assistant<|channel|>analysis<|message|>I must look.<|end|><|start|>assistant"
