"""A conversation on the terminal: its exchanges, the slash commands, and what is shown."""

import json

import pytest

from gptoss.terminal.answers import ChatError, PromptProgress
from gptoss.terminal.chat import process_line
from gptoss.terminal.screen import DIM, PLAIN
from gptoss.terminal.session import Exchange
from gptoss.terminal.slash_commands import SLASH_COMMANDS, Quit
from language.harmony.messages import Message
from tests.gptoss.terminal.fakes import session


def messages(asked):
    return [(each.role, each.content) for each in asked.messages]


def test_each_question_is_asked_with_all_that_was_said_before():
    talk, _, _ = session(["Hel", "lo"], ["[hm]", "Ada"])
    talk.system = "Be short."
    assert process_line(talk, "Hi")
    assert process_line(talk, "Who?")
    assert messages(talk.answerer.asked[0]) == [("system", "Be short."), ("user", "Hi")]
    assert messages(talk.answerer.asked[1]) == [
        ("system", "Be short."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Who?"),
    ]
    assert talk.exchanges[1].answer == "Ada"  # what was thought is no part of the conversation
    assert talk.answerer.closed == 2


def test_an_answer_that_was_stopped_stays_as_far_as_it_went():
    talk, out, _ = session(["Once upon", KeyboardInterrupt()])
    assert not process_line(talk, "A story")
    assert talk.exchanges[0].answer == "Once upon"
    assert "(stopped)" in out.getvalue()
    assert talk.answerer.closed == 1


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ChatError("no")])
def test_a_question_to_which_nothing_was_said_is_forgotten(failure):
    talk, _, _ = session(["[thinking]", failure])
    if isinstance(failure, ChatError):
        with pytest.raises(ChatError):
            process_line(talk, "Hi")
    else:
        assert not process_line(talk, "Hi")
    assert talk.exchanges == []


def test_reasoning_is_dimmed_and_set_apart():
    talk, out, _ = session(["[so ]", "[it is]", "4", "2"])
    process_line(talk, "?")
    assert out.getvalue().endswith(f"{DIM}it is{PLAIN}\n\n42\n")


def test_a_pipe_gets_the_answer_and_nothing_else(monkeypatch):
    talk, out, notes = session(["[hm]", "42\n"], ["43"], terminal=False)
    process_line(talk, "?")
    process_line(talk, "/temperature 0.5")
    process_line(talk, "?")
    assert out.getvalue() == "42\n43\n"
    assert notes.getvalue() == "(temperature: 0.5)\n"


def test_reasoning_can_be_shown_on_a_pipe_and_hidden_on_a_terminal():
    talk, out, _ = session(["[hm]", "42"], terminal=False, reasoning=True)
    process_line(talk, "?")
    assert out.getvalue() == "hm\n\n42\n"
    talk, out, _ = session(["[hm]", "42"])
    process_line(talk, "/reasoning off")
    process_line(talk, "?")
    assert "hm" not in out.getvalue()


def test_no_colours_where_they_are_not_wanted(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    talk, out, _ = session(["[hm]", "42"])
    process_line(talk, "?")
    assert out.getvalue() == "hm\n\n42\n"


def test_an_answer_cannot_steer_the_terminal():
    talk, out, _ = session(["\x1b[2J\x07\x9b1m\r", "a\tb\nc"], terminal=False)
    process_line(talk, "?")
    assert out.getvalue() == "�[2J��1m�a\tb\nc\n"
    assert talk.exchanges[0].answer.startswith("\x1b[2J")  # the model is told what it said


def test_words_change_how_questions_are_asked():
    talk, _, _ = session(["a"], ["b"], ["c"])
    for line in ("/system  Be kind. ", "/effort high", "/temperature 0", "/model other"):
        process_line(talk, line)
    process_line(talk, "1")
    asked = talk.answerer.asked[0]
    assert (asked.effort, asked.temperature, talk.answerer.name) == ("high", 0, "other")
    assert asked.messages[0] == Message("system", "Be kind.")
    process_line(talk, "/system")
    process_line(talk, "/reset")
    process_line(talk, "2")
    assert messages(talk.answerer.asked[1]) == [("user", "2")]


def test_undo_and_retry():
    talk, _, _ = session(["one"], ["two"], ["three"], [ChatError("no")])
    for line in ("a", "b", "/undo", "/retry"):
        process_line(talk, line)
    assert [(each.question, each.answer) for each in talk.exchanges] == [("a", "three")]
    with pytest.raises(ChatError):
        process_line(talk, "/retry")
    assert talk.exchanges[0].answer == "three"  # a retry that failed takes nothing away


def test_two_slashes_begin_a_question_with_one():
    talk, _, _ = session(["a"])
    process_line(talk, "//etc/hosts")
    assert messages(talk.answerer.asked[0]) == [("user", "/etc/hosts")]


def test_what_was_saved_is_the_body_of_a_request(tmp_path):
    talk, _, _ = session(["Grüße"])
    path = tmp_path / "talk.json"
    for line in ("/system Be kind.", "/effort low", "Hi", f"/save {path}"):
        process_line(talk, line)
    assert json.loads(path.read_text()) == {
        "model": "scripted",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Grüße"},
        ],
        "reasoning_effort": "low",
    }
    with pytest.raises(ChatError, match="exists"):
        process_line(talk, f"/save {path}")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/hlep", "did you mean help?"),
        ("/zzzzz", "known are effort, "),
        ("/", "known are "),
        ("/effort", "/effort LEVEL"),
        ("/effort extreme", "none, low, medium, high"),
        ("/temperature hot", "a number from 0 to 2"),
        ("/reasoning maybe", "on or off"),
        ("/reset now", "takes no argument"),
        ("/undo", "nothing has been asked"),
        ("/retry", "nothing has been asked"),
        ("/model nobody", "no model 'nobody'"),
        ("/save /nowhere/at/all", "cannot be written"),
    ],
)
def test_a_word_that_will_not_do_is_told(line, hint):
    talk, _, _ = session()
    with pytest.raises(ChatError, match=hint):
        process_line(talk, line)


def test_help_names_every_word_and_status_every_setting():
    talk, out, _ = session()
    process_line(talk, "/help")
    assert all(f"/{command.name}" in out.getvalue() for command in SLASH_COMMANDS)
    process_line(talk, "/status")
    assert "questions    0" in out.getvalue()
    process_line(talk, "/model")
    assert "* scripted\n  other\n" in out.getvalue()


@pytest.mark.parametrize("line", ["/exit", "/quit"])
def test_words_that_end_it(line):
    with pytest.raises(Quit):
        process_line(session()[0], line)


def test_a_long_prompt_is_seen_to_advance_and_leaves_no_trace():
    talk, out, _ = session([PromptProgress(0, 7511), PromptProgress(4096, 7511), "[hm]", "Hello"])
    talk.ask("?")
    before, after = out.getvalue().split("4096/7511 tokens", 1)
    assert "0/7511 tokens" in before
    assert after.removeprefix("\x1b[K").startswith("\r\x1b[K"), "the line is gone before the answer begins"
    assert after.count("\x1b[K") == 2
    assert talk.exchanges == [Exchange("?", "Hello")]


def test_a_prompt_that_is_stopped_leaves_no_trace():
    talk, out, _ = session([PromptProgress(0, 7511), KeyboardInterrupt()])
    assert not talk.ask("?")
    assert "tokens\x1b[K\r\x1b[K" in out.getvalue()


def test_a_pipe_sees_nothing_of_a_prompt():
    talk, out, notes = session([PromptProgress(0, 7511), "Hello"], terminal=False)
    talk.ask("?")
    assert (out.getvalue(), notes.getvalue()) == ("Hello\n", "")
