"""Where the stores lie: each program's own rules, from settings, environment and home alone."""

import json
from pathlib import Path

import pytest

from autotuned.core.settings import StoreSettings
from autotuned.engines.stores.folders import NO_STORES, OLLAMA_SERVICE_FOLDERS, store_folders

HOME = Path("/nobody/ada")
OFF = {"ollama": "off", "lmstudio": "off", "huggingface": "off"}


def folders(environment=None, home=HOME, **settings):
    return store_folders(StoreSettings(**settings), environment or {}, home)


def test_the_usual_places():
    found = folders()
    assert found.ollama == (HOME / ".ollama/models", *OLLAMA_SERVICE_FOLDERS)
    assert found.lmstudio == HOME / ".lmstudio/models"
    assert found.huggingface == HOME / ".cache/huggingface/hub"


def test_off_means_none():
    everything = {"OLLAMA_MODELS": "/o", "HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}
    assert folders(everything, **OFF) == NO_STORES


def test_a_folder_of_the_settings_is_that_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environment = {"OLLAMA_MODELS": "/o", "HF_HOME": "/h"}
    found = folders(environment, ollama="/a", lmstudio="~/b", huggingface="c")
    assert (found.ollama, found.lmstudio, found.huggingface) == ((Path("/a"),), HOME / "b", tmp_path / "c")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        (
            {"HF_HUB_CACHE": "/a", "HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c", "XDG_CACHE_HOME": "/d"},
            "/a",
        ),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/b"),
        ({"HF_HOME": "/c", "XDG_CACHE_HOME": "/d"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HF_HUB_CACHE": "", "HF_HOME": "~/h"}, "/nobody/ada/h/hub"),
    ],
)
def test_the_environment_moves_the_cache_of_hugging_face(environment, folder):
    assert folders(environment).huggingface == Path(folder)


def test_the_environment_moves_ollama():
    assert folders({"OLLAMA_MODELS": "~/models"}).ollama == (HOME / "models",)


def test_lm_studio_lies_where_its_pointer_says(tmp_path):
    (tmp_path / ".lmstudio-home-pointer").write_text("/big disk/lms\n")
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert folders(home=tmp_path).lmstudio == Path("/big disk/lms/models")


def test_lm_studio_of_old_lies_in_the_cache(tmp_path):
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert folders(home=tmp_path).lmstudio == tmp_path / ".cache" / "lm-studio" / "models"


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        (json.dumps({"downloadsFolder": "/big disk/models"}), Path("/big disk/models")),
        (json.dumps({"downloadsFolder": ""}), None),
        (json.dumps({"downloadsFolder": 7}), None),
        ("[]", None),
        ("{", None),
        ("", None),
        ("[" * 100_000, None),
        ('{"downloadsFolder": "a\\u0000b"}', None),
    ],
)
def test_the_settings_of_lm_studio_name_another_folder(tmp_path, settings, folder):
    (tmp_path / ".lmstudio").mkdir()
    (tmp_path / ".lmstudio" / "settings.json").write_text(settings)
    assert folders(home=tmp_path).lmstudio == (folder or tmp_path / ".lmstudio" / "models")
