"""The tokens that led to a call are replayed as they were sampled, while the client says nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from language.harmony.messages import Call, Conversation
from language.harmony.render import Renderer
from language.tokenizer import Tokenizer
from tests.language.harmony.talk import ASK, TIME, assistant, result, text_of, user


def action(tokenizer: Tokenizer, text: str) -> Sequence[int]:
    """Tokens that no renderer would choose: a character each."""
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
