"""Configuration: every source, their order, and a sentence for every mistake."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import get_origin

import pytest

from autotuned import config
from autotuned.config import ConfigInvalid
from autotuned.core.chat import ProfileName
from autotuned.core.settings import Settings
from autotuned.options import options, sections

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"AUTOTUNE_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path)}


@pytest.fixture
def load(file: Path, environment: dict[str, str]):
    def load(text: str | None = None, flags: dict[str, str] | None = None, **variables: str) -> Settings:
        file.write_text("" if text is None else text, encoding="utf-8")
        return config.load(flags=flags or {}, environment=environment | variables, file=file)

    return load


def refusal(load, *args, **kwargs) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        load(*args, **kwargs)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_nothing_set_gives_the_defaults(load, tmp_path: Path):
    settings = load()
    assert settings == Settings(paths=settings.paths)
    assert settings.paths.runtime == tmp_path / "run"
    assert settings.paths.data.is_absolute()
    assert settings.paths.data.name == settings.paths.state.name == "autotune"


def test_each_source_overrides_the_one_before(load):
    text = (
        "[queue]\nmax_waiting = 1\nwait_seconds = 1.5\n[llamacpp]\nslots = 1\n[daemon]\ndrain_seconds = 2\n"
    )
    variables = {"AUTOTUNE_QUEUE_MAX_WAITING": "2", "AUTOTUNE_LLAMACPP_SLOTS": "2"}
    settings = load(text, {"llamacpp.slots": "3"}, **variables)
    assert settings.daemon.drain_seconds == 2.0
    assert settings.queue.wait_seconds == 1.5
    assert settings.queue.max_waiting == 2
    assert settings.llamacpp.slots == 3


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("AUTOTUNE_DATA_DIR", "/d", "paths.data", Path("/d")),
        ("AUTOTUNE_STATE_DIR", "/s", "paths.state", Path("/s")),
        ("AUTOTUNE_RUNTIME_DIR", "/r", "paths.runtime", Path("/r")),
        ("AUTOTUNE_DAEMON_LOG_LEVEL", "debug", "daemon.log_level", "debug"),
        ("AUTOTUNE_MODELS_PROFILE", "fast", "models.profile", ProfileName.FAST),
        ("AUTOTUNE_MODELS_FILES", os.pathsep.join(["/a.gguf", "/b c.gguf"]), "models.files", (Path("/a.gguf"), Path("/b c.gguf"))),
        ("AUTOTUNE_MODELS_DEFAULT", "größe", "models.default", "größe"),
        ("AUTOTUNE_LLAMACPP_LOAD_TIMEOUT_SECONDS", "0.5", "llamacpp.load_timeout_seconds", 0.5),
    ],
)  # fmt: skip
def test_environment_and_flag_say_the_same(load, variable, text, key, value):
    section, name = key.split(".")
    assert getattr(getattr(load(**{variable: text}), section), name) == value
    assert getattr(getattr(load(flags={key: text}), section), name) == value


def test_an_empty_variable_counts_as_unset(load):
    assert load(AUTOTUNE_QUEUE_MAX_WAITING="").queue.max_waiting == 8


def test_paths_start_at_the_file_or_at_home(load, file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/people/ada")
    settings = load('[models]\nfiles = ["x.gguf", "~/y.gguf", "/z.gguf"]\n[paths]\ndata = "big disk"\n')
    assert settings.models.files == (file.parent / "x.gguf", Path("/people/ada/y.gguf"), Path("/z.gguf"))
    assert settings.paths.data == file.parent / "big disk"


def test_the_file_is_named_by_the_environment_or_lies_in_the_configuration_folder(
    tmp_path: Path, environment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = config._default_file()
    assert config.load(flags={}, environment=environment, file=None).queue.max_waiting == 8
    usual.parent.mkdir(parents=True)
    usual.write_text("[queue]\nmax_waiting = 5\n")
    assert config.load(flags={}, environment=environment, file=None).queue.max_waiting == 5
    other = tmp_path / "other.toml"
    other.write_text("[queue]\nmax_waiting = 6\n")
    environment["AUTOTUNE_CONFIG"] = str(other)
    assert config.load(flags={}, environment=environment, file=None).queue.max_waiting == 6


def test_windows_line_ends_and_byte_order_mark(load, file: Path, environment):
    file.write_bytes(b"\xef\xbb\xbf[queue]\r\nmax_waiting = 4\r\n")
    assert config.load(flags={}, environment=environment, file=file).queue.max_waiting == 4
    file.write_bytes(b"[queue]\r\nmax_waiting = 4\r\nslots = 4\r\n")
    with pytest.raises(ConfigInvalid, match=r"config\.toml line 3: "):
        config.load(flags={}, environment=environment, file=file)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[queue]\nmax_waitng = 3", 2, "no option queue.max_waitng; did you mean queue.max_waiting?"),
        ("\n# note\n[queue]\n\nslots = 3", 5, "no option queue.slots; did you mean llamacpp.slots?"),
        ("[llama]\nslots = 3", 1, "no option llama; did you mean [ollama]?"),
        ("[llamacp]\nslots = 3", 1, "no option llamacp; did you mean [llamacpp]?"),
        ("max_waiting = 3", 1, "no option max_waiting; did you mean queue.max_waiting?"),
        ("queue = 3", 1, "queue is a section; write [queue] with its options below"),
        ("[queue.max_waiting]\nx = 1", 1, "queue.max_waiting takes a whole number from 0 to 10000, not {'x': 1}"),
        ('[queue]\nmax_waiting = "many"', 2, 'takes a whole number from 0 to 10000, not "many"'),
        ("[queue]\nmax_waiting = -1", 2, "takes a whole number from 0 to 10000, not -1"),
        ("[queue]\nmax_waiting = true", 2, "takes a whole number from 0 to 10000, not True"),
        ("[queue]\nmax_waiting = 1.0", 2, "takes a whole number from 0 to 10000, not 1.0"),
        (f"[queue]\nmax_waiting = {'9' * 400}", 2, "not 9999"),
        ("[queue]\nwait_seconds = nan", 2, "takes a number from 0 to 604800, not nan"),
        ("[queue]\nwait_seconds = inf", 2, "takes a number from 0 to 604800, not inf"),
        (f"[queue]\nwait_seconds = {'9' * 400}", 2, "not 9999"),
        ('[models]\nprofile = "wild"', 2, 'takes one of fast, balanced, quality, not "wild"'),
        ('[models]\ndefault = "a\\u0000b"', 2, "models.default takes a text"),
        ('[daemon]\nlog_level = ["info"]', 2, "takes one of debug, info, warning, error, not ['info']"),
        ('[models]\nfiles = "x.gguf"', 2, 'models.files takes a list of paths, not "x.gguf"'),
        ('[models]\nfiles = [\n  "x.gguf",\n  3,\n]', 2, "models.files takes a list of paths, not 3"),
        ('[models]\nfiles = ["~nobody-has-this-name/x"]', 2, "models.files takes a list of paths"),
        ('[paths]\ndata = ""', 2, 'paths.data takes a path, not ""'),
        ('[paths]\nruntime = "/run/x"', 2, "set AUTOTUNE_RUNTIME_DIR instead"),
        ('[paths]\nstate = "/run/x"', 2, "set AUTOTUNE_STATE_DIR instead"),
        ('[daemon]\nlog_file = """\n[queue]\nx = 1"""\n"drain_seconds" = -1', 5, "daemon.drain_seconds takes"),
        ("queue = { max_waiting = 1, patience = 2 }", 1, "no option queue.patience"),
        ("queue.max_waiting = 1\nqueue.patience = 2", 2, "no option queue.patience"),
        ("[queue]\nzzzzzz = 1", 2, '"autotuned --help-config" lists the options'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_with_its_line(load, file: Path, text, line, words):
    sentence = refusal(load, text)
    assert sentence.startswith(f"{file} line {line}: ")
    assert words in sentence


def test_a_file_that_is_not_toml(load, file: Path, environment):
    assert "line 2" in refusal(load, "[queue]\nmax_waiting 3\n")
    for content in (b"\xff\xfe[\x00", b"#" * (1024 * 1024 + 1)):
        file.write_bytes(content)
        with pytest.raises(ConfigInvalid, match=re.escape(str(file))):
            config.load(flags={}, environment=environment, file=file)


def test_a_file_that_is_not_there_or_not_a_file(tmp_path: Path, environment):
    for path, words in ((tmp_path / "missing.toml", "there is no such file"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigInvalid, match=words):
            config.load(flags={}, environment=environment, file=path)


def test_a_mistake_in_the_environment_is_named(load):
    sentence = refusal(load, AUTOTUNE_QUEUE_MAX_WAITNG="3")
    assert sentence.startswith("environment variable AUTOTUNE_QUEUE_MAX_WAITNG: there is no such option;")
    assert "did you mean AUTOTUNE_QUEUE_MAX_WAITING?" in sentence
    assert 'not "-3s"' in refusal(load, AUTOTUNE_QUEUE_WAIT_SECONDS="-3s")
    assert "not -3" in refusal(load, AUTOTUNE_QUEUE_MAX_WAITING="-3")


def test_a_mistake_in_a_flag_is_named(load):
    assert refusal(load, flags={"queue.max_waitng": "3"}).startswith("--set queue.max_waitng: there is no")
    assert 'not "nano"' in refusal(load, flags={"queue.wait_seconds": "nano"})
    assert "not nan" in refusal(load, flags={"queue.wait_seconds": "nan"})
    assert "write [queue]" in refusal(load, flags={"queue": "3"})


def test_servers_are_read_from_every_source(load):
    entries = ("lab=http://127.0.0.1:8000/v1 slots=2", "hf=https://router.example.org/v1 token=env:HF_TOKEN")
    text = "[openai]\nupstreams = [\n" + "".join(f'  "{entry}",\n' for entry in entries) + "]\n"
    assert load(text).openai.upstreams == entries
    assert load(AUTOTUNE_OPENAI_UPSTREAMS=" ; ".join(entries)).openai.upstreams == entries
    assert load(flags={"openai.upstreams": ";".join(entries)}).openai.upstreams == entries


def test_a_mistake_in_a_server_is_named(load, file: Path):
    sentence = refusal(load, '\n[openai]\nupstreams = ["lab=http://x", "mlx=http://y"]')
    assert sentence.startswith(f"{file} line 3: openai.upstreams: ")
    assert 'cannot be called "mlx"' in sentence
    sentence = refusal(load, AUTOTUNE_OPENAI_UPSTREAMS="lab=http://x token=s3cret")
    assert sentence.startswith("environment variable AUTOTUNE_OPENAI_UPSTREAMS: openai.upstreams: the token")
    assert "s3cret" not in sentence
    assert refusal(load, flags={"openai.upstreams": "lab"}).startswith("--set openai.upstreams: ")


def test_a_wrong_value_is_refused_even_where_a_stronger_source_overrides_it(load):
    assert "line 2" in refusal(load, "[queue]\nmax_waiting = -1", {"queue.max_waiting": "1"})


def test_variables_of_other_programs_and_of_clients_are_no_business_of_the_daemon(load):
    load(AUTOTUNE_ADDRESS="unix:/x", AUTOTUNES="1", PATH="/bin")


def test_every_variable_that_a_client_reads_is_known():
    """A daemon that a client starts inherits the client's environment and must not stumble over it."""
    known = config.CLIENT_VARIABLES | {option.variable for option in options().values()} | {"AUTOTUNE_CONFIG"}
    sources = [*ROOT.glob("clients/**/*.py"), *ROOT.glob("autotunectl/**/*.py")]
    read = {
        name
        for source in sources
        for name in re.findall(r"\bAUTOTUNE_[A-Z_]*[A-Z]\b", source.read_text(encoding="utf-8"))
    }
    assert read
    assert read <= known


def test_every_field_is_a_documented_option():
    expected = {f"{section}.{field.name}" for section, kind in sections().items() for field in fields(kind)}
    assert set(options()) == expected
    for option in options().values():
        assert option.doc, option.key
        assert option.expected(), option.key
        if get_origin(option.kind) is None:
            assert option.kind not in {int, float}, f"{option.key} needs a range"


def test_every_default_is_a_value_that_its_option_takes():
    for option in options().values():
        if option.section != "paths":
            raw = getattr(option.default, "value", option.default)
            raw = list(raw) if isinstance(raw, tuple) else raw
            assert option.check(raw, Path("/")) == option.default


def test_the_description_lists_everything_and_its_toml_loads(load):
    text = config.describe()
    for option in options().values():
        assert option.variable in text
        assert option.doc[1:] in text
    entries = [line.strip() for line in text.splitlines() if re.match(r"\[|  \w+ = ", line)]
    toml = "\n".join(re.sub(r"^(\[\w+\]).*", r"\1", entry) for entry in entries)
    assert (
        load("\n".join(line for line in toml.splitlines() if not line.startswith(("runtime", "state"))))
        == load()
    )


def test_the_description_shows_defaults_whatever_the_environment_says(monkeypatch):
    default = config.describe()
    for variable in ("AUTOTUNE_DATA_DIR", "AUTOTUNE_RUNTIME_DIR", "AUTOTUNE_STATE_DIR"):
        monkeypatch.setenv(variable, "/elsewhere")
    assert config.describe() == default
