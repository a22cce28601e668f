"""Flags, environment variables, defaults and the README's table come from one definition."""

import dataclasses
import re
from pathlib import Path

import pytest

from gptoss.__main__ import parser
from server import settings_sources
from server.settings import Settings, SettingsError, flag, table

README = Path(__file__).parents[2] / "README.md"


def test_a_flag_beats_the_environment_which_beats_the_default():
    environ = {"GPTOSS_PORT": "9", "GPTOSS_MAX_QUEUED": "7"}
    settings = settings_sources.read({"port": "10", "host": None}, environ)
    assert (settings.port, settings.max_queued, settings.host) == (10, 7, "127.0.0.1")


def written(folder, content):
    """A settings file with this content."""
    path = folder / "gptoss.toml"
    path.write_text(content)
    return str(path)


def test_a_variable_beats_the_file_which_beats_the_default(tmp_path):
    config = written(tmp_path, "port = 1\nmax-queued = 2\nmax_running = 3\n")
    settings = settings_sources.read({"config": config, "port": "10"}, {"GPTOSS_MAX_QUEUED": "7"})
    assert (settings.port, settings.max_queued, settings.max_running) == (10, 7, 3)
    assert settings.max_tokens_per_step == Settings().max_tokens_per_step
    assert settings_sources.read({}, {"GPTOSS_CONFIG": config}).max_running == 3


def test_the_flag_that_names_a_file_beats_the_variable(tmp_path):
    config = written(tmp_path, "port = 1")
    assert settings_sources.read({"config": config}, {"GPTOSS_CONFIG": "nowhere.toml"}).port == 1
    with pytest.raises(SettingsError, match="GPTOSS_CONFIG: must be not empty"):
        settings_sources.read({}, {"GPTOSS_CONFIG": ""})


def test_every_setting_can_be_given_as_a_flag_as_a_variable_and_in_the_file(tmp_path):
    texts = {
        "model": "dir", "served_model_name": "x/y", "host": "::1", "port": "0", "device": "cuda:1",
        "backend": "reference", "threads": "3", "dense": "bf16", "batch_invariant": "on",
        "prompt_activations": "8", "tensor_parallel": "2",
        "kv_cache_dtype": "fp8", "max_context": "4096",
        "kv_cache_memory": "1.5GiB", "kv_cache_fraction": "0.25", "prefix_cache": "off",
        "max_running": "5", "max_queued": "6",
        "max_tokens_per_step": "7", "reasoning_cache_memory": "1M", "request_timeout": "2.5",
        "grace": "0", "date": "2024-02-29",
        "api_key": "k", "api_key_file": "file", "cors_origin": "*", "max_body_bytes": "64K",
        "allowed_host": "a.example", "key_requests_per_minute": "60", "max_connections": "7",
        "max_messages": "8", "max_tools": "9", "page": "off",
        "prefix_cache_dir": "cache", "prefix_cache_disk": "9GiB", "thinking_budget": "100",
        "seal_key_file": "key", "strict_fields": "on", "prefix_cache_per_key": "on",
        "reasoning_field": "reasoning",
        "store": "file", "store_size": "1GiB", "store_age": "60",
        "log_level": "debug", "log_format": "json",
    }  # fmt: skip
    assert set(texts) == {each.name for each in dataclasses.fields(Settings)}
    flags = [part for name, text in texts.items() for part in (f"--{name.replace('_', '-')}", text)]
    from_flags = settings_sources.read(vars(parser().parse_args(["serve", *flags])), {})
    from_environ = settings_sources.read({}, {f"GPTOSS_{name.upper()}": text for name, text in texts.items()})
    assert from_flags == from_environ
    lines = [f"{name} = {text!r}\n" for name, text in texts.items()]  # in TOML too, '' is text
    assert settings_sources.read({"config": written(tmp_path, "".join(lines))}, {}) == from_flags
    assert from_flags.kv_cache_memory == 3 * 2**29
    assert from_flags.max_body_bytes == 65536
    assert from_flags.prefix_cache is False
    for each in dataclasses.fields(Settings):
        assert getattr(from_flags, each.name) != each.default, each.name


def test_several_keys_are_several_flags_or_a_list_with_commas():
    flags = parser().parse_args(["serve", "--api-key", "a,b", "--api-key", "c"])
    assert settings_sources.read(vars(flags), {}).api_key == ("a,b", "c")
    assert settings_sources.read({}, {"GPTOSS_API_KEY": "a,b,,c"}).api_key == ("a", "b", "c")


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
def test_a_bad_value_is_refused_with_what_would_be_right(name, text, hint, tmp_path):
    config = written(tmp_path, f"{name} = {text!r}")
    for flags, environ, asked_by in (
        ({name: text}, {}, "--" + name.replace("_", "-")),
        ({}, {f"GPTOSS_{name.upper()}": text}, f"GPTOSS_{name.upper()}"),
        ({"config": config}, {}, f"{config}: {name}"),
    ):
        with pytest.raises(SettingsError) as error:
            settings_sources.read(flags, environ)
        assert asked_by in str(error.value)
        assert hint in str(error.value)
        assert "\n" not in str(error.value)


def test_an_unknown_variable_of_ours_is_an_error_and_others_are_not():
    with pytest.raises(SettingsError, match=r"GPTOSS_PROT: .*did you mean GPTOSS_PORT\?"):
        settings_sources.read({}, {"GPTOSS_PROT": "8000"})
    with pytest.raises(SettingsError, match=r"GPTOSS_ZZZZZZZ: .*known are GPTOSS_ALLOWED_HOST, "):
        settings_sources.read({}, {"GPTOSS_ZZZZZZZ": ""})
    settings_sources.read(
        {}, {"PATH": "x", "GPTOSS_FAULT": "", "GPTOSS_TOKENIZER": "", "GPTOSS_CPU_ISA": "avx2"}
    )


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over():
    """The start failed: GPTOSS_PORT was not a number, and the others are not settings."""
    injected = {
        "GPTOSS_PORT": "tcp://10.0.0.1:8000",
        "GPTOSS_SERVICE_HOST": "10.0.0.1",
        "GPTOSS_SERVICE_PORT": "8000",
        "GPTOSS_SERVICE_PORT_HTTP_API": "8000",
        "GPTOSS_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "GPTOSS_PORT_8000_TCP_PROTO": "tcp",
        "GPTOSS_PORT_8000_TCP_PORT": "8000",
        "GPTOSS_PORT_8000_TCP_ADDR": "10.0.0.1",
        "GPTOSS_20B_SERVICE_HOST": "10.0.0.2",  # of a Service gptoss-20b
        "GPTOSS_20B_PORT": "udp://10.0.0.2:53",
    }
    ours = {"GPTOSS_MAX_QUEUED": "7"}
    assert settings_sources.read({}, {**injected, **ours}) == Settings(max_queued=7)
    assert sorted(settings_sources.kubernetes_variables({**injected, **ours, "GPTOSS_HOST": "a"})) == sorted(
        injected
    )
    assert settings_sources.read({}, {"GPTOSS_PORT": "8001"}).port == 8001
    with pytest.raises(SettingsError, match="GPTOSS_PORT: must be a whole number"):
        settings_sources.read({}, {"GPTOSS_PORT": "http://10.0.0.1"})


def test_the_file_has_values_of_toml(tmp_path):
    content = """
        prefix-cache = false
        max-running = 0x10
        grace = 2.5
        date = 2024-02-29
        api-key = ["a,b", "c"]
        cors-origin = "https://a.example"
        kv-cache-memory = 1_000_000
    """
    settings = settings_sources.read({"config": written(tmp_path, content)}, {})
    assert settings == Settings(
        prefix_cache=False,
        max_running=16,
        grace=2.5,
        date="2024-02-29",
        api_key=("a,b", "c"),
        cors_origin=("https://a.example",),
        kv_cache_memory=1_000_000,
    )


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "No such file"),
        ("port = ", "is not TOML"),
        (b"\xff\xfe", "UTF-8"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("prot = 1", "'prot'; did you mean port?"),
        ("zzzzzzz = 1", "known are allowed_host, "),
        ("config = 'other.toml'", "no setting 'config'"),
        ("[server]\nport = 1", "server: settings must be at the top"),
        ("port = true", "port: must be a whole number"),
        ("port = 1.5", "port: must be a whole number"),
        ("port = [1]", "port: must be one value"),
        ("grace = nan", "grace: must be a number"),
        ("prefix_cache = 'true'", "prefix_cache: must be one of on, off"),
        ("date = 2025-06-28T10:00:00", "date: must be text, a number, a date"),
        ("api_key = [['a']]", "api_key: must be text"),
        ("api_key = ['']", "api_key: must be not empty"),
        ("max-running = 1\nmax_running = 1", "max_running is set twice"),
    ],
)
def test_a_settings_file_that_will_not_do_is_one_line_with_its_name(content, hint, tmp_path):
    path = tmp_path / "gptoss.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as error:
        settings_sources.read({"config": str(path)}, {})
    assert str(error.value).startswith(str(path))
    assert hint in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_the_file_in_the_readme_is_one(tmp_path):
    if not README.exists():
        pytest.skip("there is no README yet")
    shown = re.search(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    assert settings_sources.read({"config": written(tmp_path, shown[1])}, {}).api_key == (
        "one key",
        "another",
    )


def test_an_unknown_flag_is_told_with_the_nearest(capsys):
    for wrong, hint in (("--max-qued", "did you mean --max-queued?"), ("--zzzzzz=1", "--help` lists")):
        with pytest.raises(SystemExit):
            parser().parse_args(["serve", wrong])
        assert f"there is no {wrong.split('=')[0]}; " in (said := capsys.readouterr().err)
        assert hint in said


def test_help_shows_every_setting_under_a_heading_with_its_default(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["serve", "--help"])
    printed = capsys.readouterr().out
    unwrapped = "".join(printed.split())  # a line may end after a hyphen of a word
    for each in dataclasses.fields(Settings):
        assert f"{flag(each)} " in printed
        assert f"\n{each.metadata['group']}:\n" in printed
        assert "".join(f"{each.metadata['meaning']} (default: ".split()) in unwrapped


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
    assert shown[1].strip() == table(), "run `python -m server.settings` and paste"
