"""`gptoss serve`: answer over HTTP.  The work is in gptoss/serve.py."""

from __future__ import annotations

import argparse

from gptoss.commands import EVERY_SETTING, Command
from gptoss.hub.offer import offer_download
from server.settings import Settings


def run(settings: Settings, asked: argparse.Namespace) -> int:
    offer_download(settings.model)

    from gptoss.serve import serve

    return serve(settings)


COMMAND = Command("serve", "answer over HTTP", run, EVERY_SETTING)
