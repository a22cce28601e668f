import pytest

from model.backends.cpu import weights


@pytest.fixture
def halves(monkeypatch):
    """Unembeddings are kept in halves however small they are."""
    monkeypatch.setattr(weights, "SMALL_UNEMBEDDING", 0)
