"""Loading shows its progress on stderr, unless it takes too little time."""

import dataclasses

import pytest

from gptoss import assembly
from server.settings import Settings
from tests import tiny_checkpoint
from tests.server.fakes import byte_tokenizer


@pytest.fixture
def settings(tmp_path):
    config = dataclasses.replace(tiny_checkpoint.CONFIG, vocab_size=300)
    tiny_checkpoint.write(tmp_path, config=config)
    byte_tokenizer(tmp_path)
    return Settings(model=tmp_path, backend="reference")


def test_a_long_load_is_shown_to_its_end(settings, monkeypatch, capsys):
    monkeypatch.setattr(assembly, "WORTH_SHOWING", 0)
    assembly.assemble(settings)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("loading: 0 B of ")
    assert last.endswith(", 100 %")


def test_a_short_load_is_silent_and_its_speed_is_in_the_summary(settings, capsys):
    assembled = assembly.assemble(settings)
    assert capsys.readouterr().err == ""
    assert "B at " in assembled.summary.splitlines()[0]
