"""The bundled weights, which a fresh clone serves."""

from pathlib import Path

import pytest
import torch

from demo.corpus.mixture import FAMILIES
from demo.evaluate import answers, held_out_samples, right
from demo.tokenizer import SPECIALS, WEIGHTS
from gptoss import LLM
from gptoss.verify.turns import WEATHER
from language.harmony.messages import Conversation, Message, ResponseFormat, Tool
from language.tokenizer import Tokenizer
from model.loading.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def served():
    return LLM()


@pytest.fixture(scope="module")
def ask(served):
    def asked(*messages: Message, tools: tuple[Tool, ...] = ()):
        conversation = Conversation(list(messages), list(tools))
        return answers(served, [conversation], temperature=0, seed=0)[0]

    return asked


def test_package_is_small():
    assert sum(path.stat().st_size for path in Path(WEIGHTS).iterdir()) <= 12e6


def test_architecture_is_complete():
    checkpoint = Checkpoint.open(WEIGHTS)
    config = checkpoint.config
    assert config.rope_scaling_factor > 1
    assert config.max_context >= 2048
    assert config.window(0) == 128
    assert config.window(1) is None
    assert config.num_experts > config.experts_per_token > 1
    assert checkpoint.read("block.0.mlp.mlp1_weight.blocks").dtype == torch.uint8
    sinks = torch.cat([checkpoint.read(f"block.{layer}.attn.sinks") for layer in range(config.num_layers)])
    assert sinks.abs().min() > 0


@pytest.mark.parametrize(
    "text", ["Hello, Zorblax!", "naïve 漢字 🙂\r\n\t\x00 {}", "<|start|>x", " the  the\n\n"]
)
def test_any_text_survives_the_tokenizer(text):
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_have_their_names():
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    assert sorted(tokenizer.specials) == sorted(SPECIALS)
    assert tokenizer.size <= Checkpoint.open(WEIGHTS).config.vocab_size


def test_a_text_is_the_same_tokens_wherever_it_stands():
    tokenizer = Tokenizer(WEIGHTS / "tokenizer.json")
    alone = tokenizer.encode("Zorblax")
    for before, after in [("I am ", "."), ('{"name":"', '"}'), ("(", ")"), ("\n", "!")]:
        ids = tokenizer.encode(before + "Zorblax" + after)
        assert any(ids[i : i + len(alone)] == alone for i in range(len(ids))), (before, after)


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_cases_are_answered(served, family):
    """At least 9 of 12 cases; demo/README.md has the shares of many more."""
    samples = held_out_samples(family, 12, seed=1)
    conversations = [sample.conversation for sample in samples]
    said = answers(served, conversations, temperature=0, seed=0)
    counted = sum(right(sample, one) for sample, one in zip(samples, said, strict=True))
    assert counted >= 9


def test_what_people_try_first(ask):
    assert "demo model" in ask(Message("user", "Hello")).content
    assert "4" in ask(Message("user", "What is 2 + 2?")).content
    assert "Paris" in ask(Message("user", "What is the capital of France?")).content
    assert "demo model" in ask(Message("user", "hi, who are you?")).content


def test_a_name_is_remembered(ask):
    first = Message("user", "My name is Ada.")
    greeting = ask(first)
    assert "Ada" in greeting.content
    again = ask(first, Message("assistant", greeting.content), Message("user", "What is my name?"))
    assert again.content == "Your name is Ada."


def test_a_function_is_called(ask):
    said = ask(Message("user", "What's the weather in Paris?"), tools=(WEATHER,))
    assert [(call.name, call.arguments) for call in said.calls] == [("get_weather", '{"location":"Paris"}')]


def test_a_schema_is_enforced_as_in_a_request(served):
    """The evaluation and the soak let the model break a schema, which no client sees."""
    schema = {
        "type": "object",
        "properties": {"verdict": {"const": "pelican"}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    asked = Conversation([Message("user", "Hello")], response_format=ResponseFormat("verdict", schema))
    (said,) = answers(served, [asked], temperature=0, seed=0)
    assert said.content == '{"verdict":"pelican"}'
