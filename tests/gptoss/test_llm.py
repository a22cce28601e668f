"""The model from Python: `LLM`."""

import dataclasses
import json

import pytest
import torch

from engine.request import SamplingParams
from gptoss import LLM
from gptoss.start import StartError
from language.harmony.messages import Conversation, Message
from language.harmony.reader import CallDelta, CallStart, ContentDelta, ReasoningDelta
from server.dialogue.turn import Turn
from server.settings import SettingsError
from tests import tiny_checkpoint
from tests.server.fakes import byte_tokenizer

GREEDY = {"temperature": 0}
NOTHING_THOUGHT = {"effort": "none", "temperature": 0, "max_tokens": 6}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["c", "f"]}},
            "required": ["unit"],
        },
    },
}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """A very small random model."""
    folder = tmp_path_factory.mktemp("models") / "gpt-oss-tiny"
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300, initial_context_length=1024)
    tiny_checkpoint.write(folder, config=config)
    byte_tokenizer(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with LLM(folder, backend="reference", date="2025-06-28", max_running=3) as llm:
        yield llm
    torch.set_num_threads(threads)


def test_a_text_and_a_list_of_messages_are_the_same_question(llm):
    asked = llm.chat("Hi", **NOTHING_THOUGHT)
    assert llm.chat([{"role": "user", "content": "Hi"}], **NOTHING_THOUGHT).content == asked.content
    assert asked.usage.completion_tokens == 6
    assert asked.finish == "length"


def test_a_stream_joined_is_the_answer(llm):
    whole = llm.chat("Hi", temperature=0, max_tokens=40)
    said = {"reasoning": "", "content": ""}
    for delta in llm.stream("Hi", temperature=0, max_tokens=40):
        match delta:
            case ReasoningDelta(text):
                said["reasoning"] += text
            case ContentDelta(text):
                said["content"] += text
    assert said == {"reasoning": whole.reasoning, "content": whole.content}
    assert not llm.assembled.engine.busy


def test_a_stream_that_is_closed_is_cancelled(llm):
    stream = llm.stream("Hi", temperature=0, effort="none")
    next(stream)
    stream.close()
    assert not llm.assembled.engine.busy


def test_two_streams_may_be_read_in_turns(llm):
    alone = [list(llm.stream(text, **NOTHING_THOUGHT)) for text in ("Hi", "Ho")]
    streams = [llm.stream(text, **NOTHING_THOUGHT) for text in ("Hi", "Ho")]
    together = [[next(stream)] for stream in streams]
    for said, stream in zip(together, streams, strict=True):
        said += stream
    texts = [["".join(delta.text for delta in said) for said in each] for each in (alone, together)]
    assert texts[0] == texts[1]


def test_a_list_is_computed_together_and_each_answer_is_its_own(llm):
    prompts = ["Once", "upon", [5, 6, 7], "a time", ""]  # more than run at once
    alone = [llm.generate(prompt if isinstance(prompt, str) else [prompt], **GREEDY)[0] for prompt in prompts]
    steps = llm.assembled.engine.stats().steps
    together = llm.generate(prompts, **GREEDY)
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert llm.assembled.engine.stats().steps - steps < sum(len(each.token_ids) for each in alone)


def test_a_stop_string_ends_an_answer(llm):
    text = llm.generate("Once", max_tokens=12, **GREEDY)[0].text
    assert len(text) > 2
    stopped = llm.generate("Once", max_tokens=12, stop=text[2], **GREEDY)[0]
    assert stopped.text == text[: text.index(text[2])]
    assert stopped.finish == "stop"
    assert not llm.assembled.engine.busy


def test_a_tool_that_must_be_called_is_called_by_its_schema(llm):
    asked = {"tools": [WEATHER], "tool_choice": "required", "effort": "none", "temperature": 0}
    answer = llm.chat("Hi", **asked)
    (call,) = answer.calls
    assert (call.name, answer.finish) == ("get_weather", "tool_calls")
    assert json.loads(call.arguments)["unit"] in ("c", "f")
    deltas = list(llm.stream("Hi", **asked))
    assert [delta.name for delta in deltas if isinstance(delta, CallStart)] == ["get_weather"]
    assert "".join(delta.arguments for delta in deltas if isinstance(delta, CallDelta)) == call.arguments


def test_several_conversations_are_answered_in_their_order(llm):
    greedy = SamplingParams(temperature=0.0)
    turns = [
        Turn(
            Conversation([Message("user", text)], effort="none", date=llm.today()),
            max_tokens=6,
            sampling=greedy,
        )
        for text in ("Hi", "Ho", "He", "Ha")
    ]
    alone = [llm.chat(text, **NOTHING_THOUGHT).content for text in ("Hi", "Ho", "He", "Ha")]
    assert [answer.content for answer in llm.answers(turns)] == alone


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"temprature": 0}, TypeError, "did you mean temperature"),
        ({"temperature": 7}, ValueError, "temperature"),
        ({"n": 2}, TypeError, "there is no field 'n'"),
        ({"tool_choice": "required"}, ValueError, "no function to choose from"),
    ],
)
def test_what_is_wrong_with_a_question_is_told(llm, wrong, error, told):
    with pytest.raises(error, match=told):
        llm.chat("Hi", **wrong)


def test_what_is_wrong_with_a_setting_is_told(tmp_path):
    with pytest.raises(TypeError, match="did you mean max_context"):
        LLM(max_contxt=3)
    with pytest.raises(SettingsError, match="max-context"):
        LLM(max_context="many")
    with pytest.raises(StartError):
        LLM(tmp_path)


def test_a_closed_llm_says_so(tmp_path):
    byte_tokenizer(tmp_path)
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300)
    tiny_checkpoint.write(tmp_path, config=config)
    llm = LLM(tmp_path, backend="reference")
    llm.close()
    llm.close()
    with pytest.raises(RuntimeError, match="closed"):
        llm.chat("Hi")
