"""Answers of a model in this process; the model is random, and very small."""

import dataclasses
import signal
from pathlib import Path

import pytest
import torch

from gptoss.terminal.answers import ChatError, PromptProgress, Question
from gptoss.terminal.local import Local
from language.harmony.messages import Message
from server.settings import Settings
from tests import tiny_checkpoint
from tests.server.fakes import byte_tokenizer


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "gpt-oss-tiny"
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300, initial_context_length=1024)
    tiny_checkpoint.write(folder, config=config)
    byte_tokenizer(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is only slowed by more, on a busy machine by far
    yield Local(Settings(model=Path(folder), backend="reference", date="2025-06-28"))
    torch.set_num_threads(threads)


def question(text="Hi", max_tokens=6):
    return Question([Message("user", text)], effort="none", temperature=0, max_tokens=max_tokens)


def text(pieces):
    return "".join(
        piece.text for piece in pieces if not isinstance(piece, PromptProgress) and piece.kind != "note"
    )


def test_the_same_question_has_the_same_answer_and_leaves_nothing_behind(local):
    first = list(local.answer(question()))
    assert text(first)
    assert text(local.answer(question())) == text(first)
    assert not local._llm.assembled.engine.busy


def test_an_answer_at_its_limit_says_so(local):
    assert list(local.answer(question(max_tokens=2)))[-1].kind == "note"


def test_an_answer_that_is_closed_is_cancelled(local):
    answer = local.answer(question())
    next(answer)
    answer.close()
    assert not local._llm.assembled.engine.busy


def test_ctrl_c_waits_for_the_end_of_the_step_and_then_stops_the_answer(local):
    usual = signal.getsignal(signal.SIGINT)
    answer = local.answer(question())
    next(answer)
    signal.raise_signal(
        signal.SIGINT
    )  # raises nothing by itself: the engine might be in the middle of a step
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    assert not local._llm.assembled.engine.busy
    assert signal.getsignal(signal.SIGINT) == usual
    assert text(local.answer(question()))


def test_a_conversation_that_has_grown_too_long_is_told(local):
    with pytest.raises(ChatError, match="/reset starts a new conversation"):
        list(local.answer(question("x" * 5000)))
    assert not local._llm.assembled.engine.busy


def test_another_model_cannot_be_chosen(local):
    local.choose("gpt-oss-tiny")
    with pytest.raises(ChatError, match="gptoss chat --model other"):
        local.choose("other")


def test_a_long_prompt_is_seen_to_advance_before_the_answer(local):
    pieces = list(local.answer(question("x" * 900, max_tokens=1)))
    readings = [piece for piece in pieces if isinstance(piece, PromptProgress)]
    assert pieces[: len(readings)] == readings
    first, second, *more = (each.computed for each in readings)
    assert (first, second % 32) == (0, 0), "in steps of 512 tokens, after what the cache had"
    assert 512 <= second < 1024
    assert more in ([], [second + 512])
    assert all(each.tokens == readings[0].tokens > 900 for each in readings)
