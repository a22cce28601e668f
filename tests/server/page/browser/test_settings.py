"""The page's settings reach the model, and the user types results of calls."""

import json

from tests.server.fakes import call, final
from tests.server.scripted import Script

TOOL = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def settings(page, **values):
    page.click("[popovertarget=settings]")
    for name, value in values.items():
        field = page.locator(f"[name={name}]")
        field.select_option(value) if name == "effort" else field.fill(value)
    page.keyboard.press("Escape")


def test_each_setting_is_asked_of_the_server_and_kept(at):
    visitor = at(Script(final("ok"), final("ok")))
    page = visitor.visit()
    settings(
        page,
        system="Be brief.",
        effort="high",
        temperature="0.5",
        top_p="0.9",
        max_completion_tokens="300",
        thinking_token_budget="100",
    )
    for again in (False, True):
        with page.expect_request("**/v1/chat/completions") as request:
            visitor.ask("Hi")
        body = request.value.post_data_json
        assert body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]
        named = ("reasoning_effort", "temperature", "top_p", "max_completion_tokens", "thinking_token_budget")
        assert [body[name] for name in named] == ["high", 0.5, 0.9, 300, 100]
        if not again:
            page.reload()
            visitor.sees("ok")
            page.click("#new")


def test_a_setting_that_is_left_alone_is_not_sent(at):
    visitor = at(Script(final("ok")))
    page = visitor.visit()
    with page.expect_request("**/v1/chat/completions") as request:
        visitor.ask("Hi")
    assert set(request.value.post_data_json) == {"messages", "stream", "stream_options"}


def test_the_limit_of_tokens_is_named_where_it_ended_an_answer(at):
    visitor = at(Script(final("word " * 100)))
    page = visitor.visit()
    settings(page, max_completion_tokens="20")
    visitor.ask("Go on")
    assert "the limit of tokens" in page.inner_text(".assistant")


def test_a_call_is_answered_by_hand_and_the_model_goes_on(at):
    visitor = at(Script(call("get_weather", '{"city": "Oslo"}', "I must look."), final("It rains in Oslo.")))
    page = visitor.visit()
    settings(page, tools=json.dumps([TOOL]))
    visitor.ask("Weather in Oslo?")
    assert '"city": "Oslo"' in page.inner_text(".call pre")
    visitor.write("Well?")
    page.get_by_text("The model waits for results of its calls.").wait_for()
    page.reload()
    page.get_by_label("Result of get_weather").fill('{"rain": true}')
    page.get_by_role("button", name="Give result").click()
    visitor.sees("It rains in Oslo.")
    visitor.answered()
    assert "The weather in a city" in visitor.script.prompts[0]
    told = visitor.script.prompts[1]
    assert '{"rain": true}' in told
    assert "I must look." in told
    assert page.locator(".call pre").all_inner_texts()[1] == '{"rain": true}'


def test_tools_that_make_no_sense_are_refused_before_anything_is_sent(at):
    visitor = at(Script())
    page = visitor.visit()
    page.click("[popovertarget=settings]")
    for text, fault in [
        ("[{", "This is not JSON"),
        ('[{"x": 1}]', "Function 1 has no name."),
        ('{"name": "f", "parameters": []}', "The parameters of f must be a JSON schema"),
    ]:
        page.fill("[name=tools]", text)
        assert fault in page.inner_text("#tools-problem")
    assert page.get_attribute("[name=tools]", "aria-invalid") == "true"
    page.keyboard.press("Escape")
    visitor.write("Hi")
    page.get_by_text("Something in the settings cannot be used.").wait_for()
    page.click("[popovertarget=settings]")
    page.fill("[name=tools]", "")
    page.fill("[name=temperature]", "3")
    page.keyboard.press("Escape")
    page.fill("#input", "Hi")
    page.press("#input", "Enter")
    page.get_by_text("Something in the settings cannot be used.").wait_for()
    assert not visitor.script.prompts
