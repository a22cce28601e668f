"""Names of tools: mapped to identifiers for the model, and back."""

import time

from language.names import FunctionNames


def test_names_that_are_one_identifier_take_linear_time():
    """Four thousand of them took as many looks as there are pairs."""
    names = [f"a{'.-'[i % 2]}{i:017b}".replace("0", ".").replace("1", "-") for i in range(60_000)]
    began = time.process_time()
    mapped = FunctionNames(names)
    assert time.process_time() - began < 2
    mapped_names = [mapped.to_model(name) for name in names]
    assert len(set(mapped_names)) == len(set(names))
    assert all(mapped.to_client(own).name == name for own, name in zip(mapped_names, names, strict=True))


def test_names_that_look_numbered_already_are_told_apart():
    names = ["a_b_2", "a.b", "a-b", "a_b", "a_b_3", "a..b"]
    mapped = FunctionNames(names)
    assert len({mapped.to_model(name) for name in names}) == len(names)
    assert [mapped.to_model(name) for name in ("a_b", "a_b_2", "a_b_3")] == ["a_b", "a_b_2", "a_b_3"]
