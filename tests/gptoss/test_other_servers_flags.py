"""For flags of other servers, an error names the flag to use here."""

import re
from dataclasses import fields
from pathlib import Path

from gptoss.commands.other_servers import OURS, REASONS, hint
from server.settings import Settings, flag


def test_every_flag_of_ours_that_is_named_exists_and_none_of_theirs_is_also_ours():
    ours = {flag(each) for each in fields(Settings)}
    assert {text.split()[0].strip(":,") for text in OURS.values()} <= ours
    assert not ours & (OURS.keys() | REASONS.keys())


def test_every_flag_of_the_migration_guide_is_answered_or_is_ours():
    guide = (Path(__file__).parents[2] / "docs" / "migration.md").read_text()
    theirs = {
        name
        for column in re.findall(r"^\| (.*?) \|", guide, re.MULTILINE)
        for name in re.findall(r"`(--?[a-zA-Z][\w-]*)", column)
    }
    ours = {flag(each) for each in fields(Settings)} | {"--config"}
    assert len(theirs) > 60
    assert sorted(name for name in theirs - ours if hint(name) is None) == []


def test_what_nobody_has_is_not_answered():
    assert hint("--max-model-len") == "here it is --max-context"
    assert hint("--nonsense") is None
