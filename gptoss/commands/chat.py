"""`gptoss chat`: a conversation on the terminal.  The work is in gptoss/terminal/."""

from __future__ import annotations

import argparse

from gptoss.commands import MODEL_SETTINGS, Command, checked, refuse_with_url
from gptoss.hub.offer_download import offer_download
from server.setting_kinds import number, text, whole_number
from server.settings import Settings

EVERYWHERE = ("model", "log_level", "log_format")
"""Settings that mean something also where the model is at a URL."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=checked(text("URL")),
        help="of any OpenAI-compatible server, as http://127.0.0.1:8000; then --model is one of its models "
        "(default: the model is loaded into this process)",
    )
    parser.add_argument(
        "--api-key", dest="key", metavar="KEY", help="for the server at --url (default: OPENAI_API_KEY)"
    )
    parser.add_argument("--system", metavar="TEXT", default="", help="the system prompt (default: none)")
    parser.add_argument(
        "--effort",
        choices=["none", "low", "medium", "high"],
        help="how much to think (default: the model's: medium)",
    )
    parser.add_argument("--temperature", type=checked(number(0, 2)), help="0: the likeliest (default: 1)")
    parser.add_argument(
        "--max-tokens", metavar="N", type=checked(whole_number(1)), help="of an answer (default: no limit)"
    )
    parser.add_argument(
        "--reasoning",
        action=argparse.BooleanOptionalAction,
        help="show it, or do not (default: on a terminal only)",
    )
    parser.epilog = "Lines on standard input are questions, one on each, where it is no terminal."


def run(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.url is None:
        offer_download(settings.model)
    else:
        refuse_with_url(asked, MODEL_SETTINGS, EVERYWHERE)

    from gptoss.terminal.chat import chat

    return chat(settings, asked)


COMMAND = Command("chat", "a conversation on the terminal", run, MODEL_SETTINGS, add_flags)
