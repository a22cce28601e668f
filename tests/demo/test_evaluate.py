"""What the evaluation of the demo model counts as right."""

import pytest

from demo.corpus.sample import Answer, FunctionCall, Sample
from demo.evaluate import Row, fallen, right
from gptoss import results
from language.harmony.messages import Call, Conversation

TALK = Conversation([])


def the_client_sees(content="", calls=()):
    return results.Answer(content, "", calls, results.Usage(1, 1), "stop")


@pytest.mark.parametrize(
    ("wanted", "said", "same"),
    [
        ("Paris.", "Paris.", True),
        ("Paris.", "Paris", False),
        ('{"name":"Ada","age":7}', '{"age": 7.0, "name": "Ada"}', True),
        ('{"name":"Ada","age":7}', '{"name":"Ada"}', False),
        ('{"age":1}', '{"age":true}', False),
        ('{"age":1}', '{"age":1', False),
    ],
)
def test_text_is_compared_exactly_and_json_as_values(wanted, said, same):
    expected = Sample("records", TALK, Answer(None, final=wanted), key="")
    assert right(expected, the_client_sees(content=said)) is same
    if wanted.startswith("{"):
        expected = Sample("calling", TALK, Answer(None, call=FunctionCall("f", wanted)), key="")
        assert right(expected, the_client_sees(calls=(Call("call_1", "f", said),))) is same
        assert not right(expected, the_client_sees(calls=(Call("call_1", "g", said),)))
        assert not right(expected, the_client_sees(content=said))


def test_a_family_that_fell_is_named():
    table = {"sums": {"greedy": 0.98, "sampled": 0.96}, "talk": {"greedy": 1.0, "sampled": 1.0}}
    good = [Row("sums", 200, 0.975, 0.95, {}), Row("talk", 200, 1.0, 1.0, {})]
    assert fallen(table, good) == []
    assert fallen(table, [Row("sums", 200, 0.965, 0.95, {})]) == ["sums, greedy: 96.5%, was 98.0%"]
    assert fallen(table, [Row("talk", 200, 1.0, 0.97, {})]) == ["talk, sampled: 97.0%, was 100.0%"]
    assert fallen(table, [Row("jokes", 200, 1.0, 1.0, {})]) == ["jokes is not in the table"]
