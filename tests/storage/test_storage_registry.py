"""The registry file: what the package has, what a user's own file adds, and what of it is left out."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.core.model import LayerGroup
from autotuned.core.registry import Rank, RegistrySize
from autotuned.storage.registry import MOST_OWN_BYTES, TomlRegistryFile, packaged_models

OWN = """
[[models]]
id = "my-model"
parameters = 8000000000
names = { ollama = "ada/my-model:8b" }
sizes = [{ of = "ollama", quantization = "Q4_K_M", bytes = 5000000000 }]
"""
ALL = """
[[models]]
id = "all.of_it-1"
name = "All of it"
publisher = "Ada"
released = "2026-01"
license = "MIT"
parameters = 30000000000
active_parameters = 3000000000
architecture = "qwen3moe"
layers = 48
embedding_length = 2048
vocabulary_size = 151936
train_context_tokens = 40960
thinks = true
calls_tools = true
modalities = ["text", "image"]
attention = [
  { layers = 12, kv_heads = 2, key_length = 256, value_length = 128, window_tokens = 1024 },
  { layers = 36, recurrent_elements = 1000 },
]
notes = "Mine."
[models.names]
ollama = "all"
huggingface = "ada/all-GGUF"
mlx = "mlx-community/all"
[[models.sizes]]
of = "huggingface"
quantization = "Q8_0"
bytes = 32000000000
[models.scores]
overall = 61
coding = [3, 50]
[models.sources]
config = "https://example.org/config.json"
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    return tmp_path / "models.toml"


def by_id(registry):
    return {model.id: model for model in registry.models}


async def problems_of(own_file, content):
    own_file.write_text(content)
    return (await TomlRegistryFile(own_file).read()).problems


async def test_without_a_file_there_is_what_the_package_has(own_file):
    registry = await TomlRegistryFile(own_file).read()
    assert registry.problems == ()
    assert list(by_id(registry)) == sorted(model.id for model in packaged_models())
    assert not any(model.is_own for model in registry.models)


async def test_a_users_model_is_added(own_file):
    own_file.write_text(OWN)
    registry = await TomlRegistryFile(own_file).read()
    assert registry.problems == ()
    assert len(registry.models) == len(packaged_models()) + 1
    own = by_id(registry)["my-model"]
    assert own.is_own
    assert (own.name, own.active_parameters_count) == ("my-model", 8_000_000_000)
    assert (own.layers_count, own.layer_groups, own.overall_score, own.ranks) == (0, (), None, {})
    assert (own.modalities, own.license, own.thinks) == (("text",), "", False)


async def test_every_field_is_read(own_file):
    own_file.write_text(ALL)
    own = by_id(await TomlRegistryFile(own_file).read())["all.of_it-1"]
    assert (own.name, own.publisher, own.released, own.license) == ("All of it", "Ada", "2026-01", "MIT")
    assert (own.parameters_count, own.active_parameters_count) == (30_000_000_000, 3_000_000_000)
    assert (own.architecture, own.layers_count, own.embedding_length) == ("qwen3moe", 48, 2048)
    assert (own.vocabulary_size, own.train_context_tokens) == (151_936, 40_960)
    assert (own.thinks, own.calls_tools, own.modalities) == (True, True, ("text", "image"))
    assert own.layer_groups == (
        LayerGroup(layers_count=12, kv_heads=2, key_length=256, value_length=128, window_tokens=1024),
        LayerGroup(layers_count=36, recurrent_elements=1000),
    )
    assert own.names == {"ollama": "all", "huggingface": "ada/all-GGUF", "mlx": "mlx-community/all"}
    assert own.sizes == (RegistrySize(of="huggingface", quantization="Q8_0", size_bytes=32_000_000_000),)
    assert (own.overall_score, own.ranks) == (61.0, {"coding": Rank(3, 50)})
    assert own.sources == {"config": "https://example.org/config.json"}
    assert own.notes == "Mine."


async def test_a_users_model_takes_the_place_of_one_with_the_same_id(own_file):
    own_file.write_text(OWN.replace("my-model", "qwen3-8b", 1))
    registry = await TomlRegistryFile(own_file).read()
    assert len(registry.models) == len(packaged_models())
    assert by_id(registry)["qwen3-8b"].parameters_count == 8_000_000_000


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            ('id = "my-model"', 'id = "My Model"'),
            '("My Model") was left out: its id has other characters than',
        ),
        (('id = "my-model"', "id = 7"), "model 1 was left out: Expected `str`, got `int` - at `$.id`."),
        (('id = "my-model"', ""), "model 1 was left out: Object missing required field `id`."),
        (("8000000000", "0"), "Expected `int` >= 1 - at `$.parameters`."),
        (("8000000000", "8e9"), "Expected `int`, got `float` - at `$.parameters`."),
        (("5000000000 }", "5000000000, url = 1 }"), "unknown field `url` - at `$.sizes[0]`."),
        (('of = "ollama"', 'of = "mlx"'), 'a size is of "mlx", under which it has no name.'),
        (
            ("{ ollama =", "{ modelscope ="),
            '"modelscope" is no place that models come from; use "huggingface"',
        ),
        (("names =", "layers = 2\nattention = [{ layers = 1 }]\nnames ="), "do not add up to 2."),
        (("names =", "active_parameters = 9000000000\nnames ="), "more parameters are active than it has."),
        (("names =", "scores = { overall = [1, 2] }\nnames ="), 'the score "overall" is no number.'),
        (("names =", "scores = { coding = 60 }\nnames ="), 'the score "coding" is no pair of place and'),
        (("names =", "scores = { coding = [9, 2] }\nnames ="), 'the score "coding" is no pair of place and'),
        (("names =", "scores = { coding = [0, 2] }\nnames ="), 'the score "coding" is no pair of place and'),
        (("names =", "scores = { overall = nan }\nnames ="), "Expected `float`"),
        (("names =", "license = []\nnames ="), "Expected `str`, got `array` - at `$.license`."),
        (("sizes = [", "sizes = []\n#"), "Expected `array` of length >= 1 - at `$.sizes`."),
    ],
)
async def test_a_wrong_model_is_left_out_and_told_and_the_others_are_kept(own_file, change, problem):
    own_file.write_text(OWN.replace(*change, 1) + OWN.replace("my-model", "right"))
    registry = await TomlRegistryFile(own_file).read()
    (told,) = registry.problems
    assert told.startswith(f"{own_file}: model 1")
    assert problem in told
    assert told.endswith(".")
    assert [model.id for model in registry.models if model.is_own] == ["right"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("models = [", "is no TOML: "),
        ("a = 1\na = 2", "is no TOML: Cannot overwrite a value (at "),
        ("a = " + "9" * 5000, "is no TOML: Exceeds the limit"),
        ("a = " + "[" * 20_000, "is no TOML: it is nested too deeply."),
        ("models = 3", ': "models" is no list of tables; begin each model with [[models]].'),
        ("[models]\nid = 'x'", ': "models" is no list of tables; begin each model with [[models]].'),
        ("models = [1]", ": model 1 was left out: Expected `object`, got `int`."),
    ],
)
async def test_what_is_wrong_with_the_whole_file_is_told_in_a_sentence(own_file, content, problem):
    (told,) = await problems_of(own_file, content)
    assert told.startswith(str(own_file))
    assert problem in told
    assert told.endswith(".")


async def test_an_empty_file_or_one_without_models_is_no_problem(own_file):
    assert await problems_of(own_file, "") == ()
    assert await problems_of(own_file, "# nothing yet\n") == ()


async def test_what_is_no_text_is_told(own_file):
    own_file.write_bytes(b"\xff\xfe\x00")
    registry = await TomlRegistryFile(own_file).read()
    assert registry.problems[0].startswith(f"{own_file} is no TOML: 'utf-8' codec can't decode")
    assert len(registry.models) == len(packaged_models())


async def test_a_file_that_is_too_large_is_not_read(own_file):
    own_file.write_bytes(b"#" * (MOST_OWN_BYTES + 1))
    registry = await TomlRegistryFile(own_file).read()
    assert registry.problems == (f"{own_file} is larger than 4 MiB and was not read.",)
    own_file.write_bytes(OWN.encode() + b"#" * (MOST_OWN_BYTES - len(OWN.encode())))
    assert (await TomlRegistryFile(own_file).read()).problems == ()


async def test_a_folder_or_a_pipe_in_its_place_is_told(tmp_path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        registry = await TomlRegistryFile(path).read()
        assert registry.problems == (
            f"{path} is no file; remove it, or write models into a file of that name.",
        )


async def test_a_file_that_may_not_be_read_is_told_and_read_once_it_may(own_file, monkeypatch):
    own_file.write_text(OWN)
    reads = TomlRegistryFile(own_file)
    opens = Path.open

    def refusing(path, *args, **options):
        if path == own_file:
            raise PermissionError(13, "Permission denied")
        return opens(path, *args, **options)

    with monkeypatch.context() as patch:  # modes mean nothing to root
        patch.setattr(Path, "open", refusing)
        assert (await reads.read()).problems == (f"{own_file} cannot be read: Permission denied.",)
    own_file.chmod(0o600)
    assert (await reads.read()).problems == ()


async def test_a_folder_that_may_not_be_entered_is_told(tmp_path):
    inside_a_file = tmp_path / "file" / "models.toml"
    (tmp_path / "file").write_text("")
    registry = await TomlRegistryFile(inside_a_file).read()
    assert registry.problems == (f"{inside_a_file} cannot be read: Not a directory.",)


async def test_a_file_that_did_not_change_is_not_read_again(own_file):
    own_file.write_text(OWN)
    reads = TomlRegistryFile(own_file)
    assert await reads.read() is await reads.read()
    assert reads.own_file == own_file


async def test_a_file_that_changes_comes_and_goes_is_read_again(own_file):
    reads = TomlRegistryFile(own_file)
    assert "my-model" not in by_id(await reads.read())
    own_file.write_text(OWN)
    assert "my-model" in by_id(await reads.read())
    own_file.write_text(OWN.replace("my-model", "other"))
    assert "other" in by_id(await reads.read())
    own_file.unlink()
    assert len((await reads.read()).models) == len(packaged_models())


async def test_a_file_that_is_replaced_by_one_as_old_and_as_large_is_read_again(own_file, tmp_path):
    own_file.write_text(OWN)
    reads = TomlRegistryFile(own_file)
    await reads.read()
    before = own_file.stat()
    other = tmp_path / "other.toml"
    other.write_text(OWN.replace("my-model", "an-model"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(own_file)
    assert "an-model" in by_id(await reads.read())


values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(1 << 60), 1 << 60), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = sorted(tomllib.loads(ALL)["models"][0])


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
def test_whatever_a_field_holds_the_model_is_read_or_left_out_with_a_sentence(tmp_path_factory, changes):
    own_file = tmp_path_factory.mktemp("own") / "models.toml"
    fields = tomllib.loads(OWN)["models"][0] | changes
    own_file.write_text(f"models = [{written(fields)}]", encoding="utf-8", newline="")
    registry = TomlRegistryFile(own_file)._read()
    own = [model for model in registry.models if model.is_own]
    assert len(own) + len(registry.problems) == 1
    assert all(problem.endswith(".") for problem in registry.problems)


def written(value):
    """As TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(key)} = {written(each)}" for key, each in value.items()) + "}"
    return repr(value)
