import pytest

from engine import disk_cache


@pytest.fixture(autouse=True)
def short_prompts_are_long(monkeypatch):
    monkeypatch.setattr(disk_cache, "LONG_PROMPT", 8)
    monkeypatch.setattr(disk_cache, "RESUME_EVERY", 20)
    monkeypatch.setattr(disk_cache, "RESUME_LAST", 12)
