import pytest

from engine.disk import cache


@pytest.fixture(autouse=True)
def short_prompts_are_long(monkeypatch):
    monkeypatch.setattr(cache, "LONG_PROMPT", 8)
    monkeypatch.setattr(cache, "RESUME_EVERY", 20)
    monkeypatch.setattr(cache, "RESUME_LAST", 12)
