"""Fixtures for the tests of several packages."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """A command that is run in this process sets up logging for itself, and has it to itself no longer."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """Bytes and harmony's special tokens; see tests/server/fakes.py."""
    from tests.server.fakes import byte_tokenizer

    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))
