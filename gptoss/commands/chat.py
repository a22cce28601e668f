"""`gptoss chat`: chats with a model on the terminal.  The work is in gptoss/terminal/."""

from __future__ import annotations

import argparse

from gptoss.commands import MODEL_SETTINGS, Command, checked, refuse_with_url
from gptoss.hub.offer_download import offer_download
from server.setting_kinds import number, text, whole_number
from server.settings import Settings

EVERYWHERE = ("model", "log_level", "log_format")
"""The settings that have an effect with --url."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=checked(text("URL")),
        help="use this OpenAI-compatible server, such as http://127.0.0.1:8000; --model is then one of its "
        "models (default: load the model into this process)",
    )
    parser.add_argument(
        "--api-key",
        dest="key",
        metavar="KEY",
        help="API key for the server at --url (default: OPENAI_API_KEY)",
    )
    parser.add_argument("--system", metavar="TEXT", default="", help="the system prompt (default: none)")
    parser.add_argument(
        "--effort",
        choices=["none", "low", "medium", "high"],
        help="reasoning effort (default: medium)",
    )
    parser.add_argument(
        "--temperature", type=checked(number(0, 2)), help="0: always the most likely token (default: 1)"
    )
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=checked(whole_number(1)),
        help="maximum tokens of an answer (default: no limit)",
    )
    parser.add_argument(
        "--reasoning",
        action=argparse.BooleanOptionalAction,
        help="show the reasoning or not (default: only on a terminal)",
    )
    parser.epilog = "If standard input is not a terminal, each line is a question."


def run(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.url is None:
        offer_download(settings.model)
    else:
        refuse_with_url(asked, MODEL_SETTINGS, EVERYWHERE)

    from gptoss.terminal.chat import chat

    return chat(settings, asked)


COMMAND = Command("chat", "chat with a model on the terminal", run, MODEL_SETTINGS, add_flags)
