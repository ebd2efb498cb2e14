"""Which folders are offered to MLX, and under which names."""

import pytest

from autotuned.engines.stores.mlx import mlx_folders
from tests.engines.store_files import Hub, mlx_folder

CONFIG = b'{"architectures": ["LlamaForCausalLM"]}'
QUANTIZED = b'{"model_type": "llama", "quantization": {"bits": 4}, "x": Infinity}'


@pytest.fixture
def found(tmp_path):
    """``found()`` is the folder for each name in the three places below the test's folder."""

    def run(note=None):
        return dict(mlx_folders(tmp_path / "models", tmp_path / "hub", tmp_path / "lms", note))

    return run


@pytest.fixture
def hub(tmp_path):
    return Hub(tmp_path / "hub")


def test_nothing_is_there(found, tmp_path):
    assert found(pytest.fail) == {}
    assert list(mlx_folders(tmp_path, None, None)) == []


def test_a_folder_of_the_models_folder_is_called_by_its_name(found, tmp_path):
    folder = mlx_folder(tmp_path / "models" / "tiny")
    other = mlx_folder(tmp_path / "models" / "old", tokenizer="tokenizer.model")
    (tmp_path / "models" / "file.gguf").write_text("x")
    assert found() == {"old": other, "tiny": folder}


def test_the_cache_offers_what_was_made_for_mlx(found, hub):
    files = {"model_safetensors": b"w", "tokenizer_json": b"{}"}
    plain = hub.snapshot("mlx-community/plain", "a", config_json=CONFIG, **files)
    quantized = hub.snapshot("ada/quantized", "b", config_json=QUANTIZED, **files)
    hub.snapshot("ada/plain", "c", config_json=CONFIG, **files)
    assert found() == {"ada/quantized": quantized, "mlx-community/plain": plain}


def test_lm_studio_has_publishers(found, tmp_path):
    folder = mlx_folder(tmp_path / "lms" / "ada" / "tiny")
    mlx_folder(tmp_path / "lms" / "not-below-a-publisher")
    assert found() == {"ada/tiny": folder}


def test_a_folder_that_is_reached_twice_and_an_equal_name_count_once(found, hub, tmp_path):
    files = {"config_json": QUANTIZED, "model_safetensors": b"w", "tokenizer_json": b"{}"}
    snapshot = hub.snapshot("ada/tiny", "a", **files)
    mlx_folder(tmp_path / "lms" / "ada" / "tiny")
    assert found() == {"ada/tiny": snapshot}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(snapshot)
    mlx_folder(tmp_path / "lms" / "ada" / "tiny")
    assert found() == {
        "mine": tmp_path / "models" / "mine",
        "ada/tiny": tmp_path / "lms" / "ada" / "tiny",
    }


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_lacks_a_file_is_not_offered(found, tmp_path, missing):
    (mlx_folder(tmp_path / "models" / "tiny") / missing).unlink()
    assert found() == {}


@pytest.mark.parametrize("config", ["", "{", "[]", "{}", '{"model_type": ""}', "[" * 100_000])
def test_a_configuration_without_an_architecture_is_not_offered(found, tmp_path, config):
    (mlx_folder(tmp_path / "models" / "tiny") / "config.json").write_text(config)
    notes = []
    assert found(lambda *note: notes.append(note)) == {}
    assert [reason for _, reason in notes] == ["its config.json names no architecture"]


def test_weights_that_are_not_all_there_are_not_offered(found, tmp_path):
    folder = mlx_folder(tmp_path / "models" / "tiny")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert found() == {}
    (folder / "model-00002-of-00002.safetensors").symlink_to(tmp_path / "not yet")
    assert found() == {}
    (tmp_path / "not yet").write_bytes(b"w")
    assert found() == {"tiny": folder}


def test_loops_cost_nothing(found, hub, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "loop").symlink_to(tmp_path / "models")
    (tmp_path / "models" / "self").symlink_to(tmp_path / "models" / "self")
    (tmp_path / "lms" / "ada").mkdir(parents=True)
    (tmp_path / "lms" / "ada" / "loop").symlink_to(tmp_path / "lms")
    (hub.folder / "models--x").symlink_to(hub.folder)
    assert found(pytest.fail) == {}
