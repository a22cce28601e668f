"""Names of tools: mapped to identifiers for the model, and back."""

import time

from language.names import FunctionNames


def colliding(count):
    """Names that all become the same identifier."""
    return [f"a{'.-'[i % 2]}{i:017b}".replace("0", ".").replace("1", "-") for i in range(count)]


def seconds(names):
    """Processor time of this thread, the minimum of three runs."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        FunctionNames(names)
        taken.append(time.thread_time() - began)
    return min(taken)


def test_names_that_are_one_identifier_take_linear_time():
    """Before, the time was proportional to the number of pairs."""
    assert seconds(colliding(32_000)) < 24 * seconds(colliding(4_000))  # 8 times as many; pairs: 64 times


def test_names_that_are_one_identifier_are_told_apart():
    names = colliding(4_000)
    mapped = FunctionNames(names)
    mapped_names = [mapped.to_model(name) for name in names]
    assert len(set(mapped_names)) == len(set(names)) == 4_000
    assert all(mapped.to_client(own).name == name for own, name in zip(mapped_names, names, strict=True))


def test_names_that_look_numbered_already_are_told_apart():
    names = ["a_b_2", "a.b", "a-b", "a_b", "a_b_3", "a..b"]
    mapped = FunctionNames(names)
    assert len({mapped.to_model(name) for name in names}) == len(names)
    assert [mapped.to_model(name) for name in ("a_b", "a_b_2", "a_b_3")] == ["a_b", "a_b_2", "a_b_3"]
