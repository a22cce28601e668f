"""Flags, environment, defaults, and the README's table: one source."""

import dataclasses
import re
from pathlib import Path

import pytest

from server import settings as knobs
from server.__main__ import parser
from server.settings import Settings, SettingsError

README = Path(__file__).parents[2] / "README.md"


def test_a_flag_beats_the_environment_which_beats_the_default():
    environ = {"GPTOSS_PORT": "9", "GPTOSS_MAX_QUEUED": "7"}
    settings = knobs.read({"port": "10", "host": None}, environ)
    assert (settings.port, settings.max_queued, settings.host) == (10, 7, "127.0.0.1")


def test_every_setting_can_be_given_as_a_flag_and_as_a_variable(tmp_path):
    texts = {
        "model": "dir", "served_model_name": "x/y", "host": "::1", "port": "0", "device": "cuda:1",
        "backend": "reference", "threads": "3", "dense": "bf16", "max_context": "4096",
        "kv_cache_memory": "1.5GiB", "kv_cache_fraction": "0.25", "prefix_cache": "off",
        "max_running": "5", "max_queued": "6",
        "max_tokens_per_step": "7", "recall_memory": "1M", "request_timeout": "2.5",
        "grace": "0", "date": "2024-02-29",
        "api_key": "k", "api_key_file": "file", "cors_origin": "*", "max_body_bytes": "64K",
        "log_level": "debug", "log_format": "json",
    }  # fmt: skip
    assert set(texts) == {each.name for each in dataclasses.fields(Settings)}
    flags = [part for name, text in texts.items() for part in (f"--{name.replace('_', '-')}", text)]
    from_flags = knobs.read(vars(parser().parse_args(["serve", *flags])), {})
    from_environ = knobs.read({}, {f"GPTOSS_{name.upper()}": text for name, text in texts.items()})
    assert from_flags == from_environ
    assert from_flags.kv_cache_memory == 3 * 2**29
    assert from_flags.max_body_bytes == 65536
    assert from_flags.prefix_cache is False
    for each in dataclasses.fields(Settings):
        assert getattr(from_flags, each.name) != each.default, each.name


def test_several_keys_are_several_flags_or_a_list_with_commas():
    flags = parser().parse_args(["serve", "--api-key", "a,b", "--api-key", "c"])
    assert knobs.read(vars(flags), {}).api_key == ("a,b", "c")
    assert knobs.read({}, {"GPTOSS_API_KEY": "a,b,,c"}).api_key == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("port", "abc", "0 to 65535"),
        ("port", "65536", "0 to 65535"),
        ("port", "-1", "0 to 65535"),
        ("port", "1.5", "whole number"),
        ("port", "", "whole number"),
        ("port", "１", "whole number"),
        ("max_running", "0", "from 1"),
        ("max_running", "9" * 40, "whole number"),
        ("request_timeout", "nan", "a number from 0"),
        ("request_timeout", "inf", "a number from 0"),
        ("grace", "-1", "a number from 0"),
        ("kv_cache_memory", "much", "4GiB"),
        ("kv_cache_memory", "0", "4GiB"),
        ("kv_cache_memory", "-1G", "4GiB"),
        ("prefix_cache", "yes", "one of on, off"),
        ("date", "28.6.2025", "2025-06-28"),
        ("date", "2025-02-30", "2025-06-28"),
        ("log_format", "xml", "text, json"),
        ("model", " ", "not empty"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_be_right(name, text, hint):
    for flags, environ, asked_by in (
        ({name: text}, {}, "--" + name.replace("_", "-")),
        ({}, {f"GPTOSS_{name.upper()}": text}, f"GPTOSS_{name.upper()}"),
    ):
        with pytest.raises(SettingsError) as error:
            knobs.read(flags, environ)
        assert asked_by in str(error.value)
        assert hint in str(error.value)
        assert "\n" not in str(error.value)


def test_an_unknown_variable_of_ours_is_an_error_and_others_are_not():
    with pytest.raises(SettingsError, match="GPTOSS_PROT"):
        knobs.read({}, {"GPTOSS_PROT": "8000"})
    knobs.read({}, {"PATH": "x", "GPTOSS_FAULT": "", "GPTOSS_TOKENIZER": "", "GPTOSS_CPU_ISA": "avx2"})


@pytest.mark.parametrize(
    ("content", "hint"), [(None, "No such file"), (b"\n# none\n", "no key"), (b"\xff\xfe", "UTF-8")]
)
def test_a_key_file_that_will_not_do(tmp_path, content, hint):
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=hint):
        Settings(api_key_file=path).api_keys()


def test_the_readme_has_the_table_of_settings():
    if not README.exists():
        pytest.skip("there is no README yet")
    shown = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", README.read_text(), re.DOTALL)
    assert shown, "README.md has no <!-- settings --> … <!-- /settings -->"
    assert shown[1].strip() == knobs.table(), "run `python -m server.settings` and paste"
