"""`gptoss batch IN OUT`: answers a file of requests.  The work is in gptoss/batch/."""

from __future__ import annotations

import argparse

from gptoss.commands import MODEL_SETTINGS, Command, checked, refuse_with_url
from gptoss.hub.offer_download import offer_download
from server.setting_kinds import text, whole_number
from server.settings import Settings

SETTINGS = (*MODEL_SETTINGS, "served_model_name", "max_running", "max_body_bytes")


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN.jsonl", help="file of requests, one on each line")
    parser.add_argument(
        "target",
        metavar="OUT.jsonl",
        help="file for the results; requests with a result in it are not sent again",
    )
    parser.add_argument(
        "--url",
        type=checked(text("URL")),
        help="use this OpenAI-compatible server, such as http://127.0.0.1:8000 (default: load the model into "
        "this process)",
    )
    parser.add_argument(
        "--api-key",
        dest="key",
        metavar="KEY",
        help="API key for the server at --url (default: OPENAI_API_KEY)",
    )
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=checked(whole_number(1, 10_000)),
        help="number of concurrent requests (default: twice --max-running; with --url 64)",
    )
    parser.epilog = (
        "The format is OpenAI's batch format: docs/batch.md.  Exit codes: 0 all requests are answered, 1 "
        "some results are errors, 75 the server stopped answering."
    )


def run(settings: Settings, asked: argparse.Namespace) -> int:
    if asked.url is None:
        offer_download(settings.model)
    else:
        refuse_with_url(asked, SETTINGS, ("log_level", "log_format"))

    from gptoss.batch.run import batch

    code = batch(settings, asked)
    if asked.url is None and settings.tensor_parallel > 1:
        from gptoss.serve import leave

        leave(code)
    return code


COMMAND = Command("batch", "answer a file of requests", run, SETTINGS, add_flags)
