"""The checks of a page (`Watch`) find what they should; the other tests rely on this."""

import pytest

from tests.server.page.browser.visitor import faults
from tests.server.scripted import Script


@pytest.mark.parametrize(
    ("deed", "seen"),
    [
        ("console.log('a line')", "a line"),
        ("setTimeout(() => { throw new Error('thrown') })", "thrown"),
        ("fetch('https://elsewhere.example/').catch(() => 0)", "Content Security Policy"),
        (
            "document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.example/'}))",
            "Content Security",
        ),
        ("document.body.setAttribute('style', 'color: red')", "Content Security Policy"),
        ("try { document.body.innerHTML = '<p>' } catch {}", "TrustedHTML"),
    ],
)
def test_a_deed_that_is_forbidden_fails_its_test(at, deed, seen):
    visitor = at(Script())
    page = visitor.visit()
    page.evaluate(deed)
    page.wait_for_timeout(200)
    with pytest.raises(AssertionError, match=seen):
        visitor.check()
    visitor.allow(".")


def test_a_fault_of_accessibility_is_found(at):
    visitor = at(Script())
    page = visitor.visit()
    assert faults(page) == []
    page.evaluate(
        "document.querySelector('#messages').append(Object.assign(new Image(), {src: 'page/icon.svg'}))"
    )
    assert [fault for fault in faults(page) if fault.startswith("image-alt")]
