"""What tests of several rooms share."""

import pytest


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory):
    """Bytes and harmony's special tokens; see tests/server/fakes.py."""
    from tests.server.fakes import byte_tokenizer

    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))
