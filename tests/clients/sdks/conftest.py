"""Which tests have passed so far, for a test that counts others."""

from collections.abc import Iterator

import pytest

PASSED = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call" and report.passed:
        item.session.stash.setdefault(PASSED, []).append(item.nodeid)
    return report


@pytest.fixture
def passed(request: pytest.FixtureRequest) -> list[str]:
    """Node ids of the tests that passed before this one."""
    return request.session.stash.get(PASSED, [])
