"""Which files are models, what they are called, and what looking at them costs."""

import os

import pytest

from autotuned.engines import gguf
from autotuned.engines.llamacpp import discovery
from autotuned.engines.llamacpp.discovery import POCKET, ModelFiles
from tests.engines.gguf_files import LLAMA, write


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def scan(folder):
    """``scan(*files)`` lists the models; every call goes through one memory."""
    memory = {}

    def run(*files):
        models = memory.setdefault(files, ModelFiles(engine="llamacpp", models_folder=folder, files=files))
        return {entry.id: entry for entry in models.scan()}

    return run


@pytest.fixture
def reads(monkeypatch):
    """Paths of the headers that were read."""
    seen = []

    def read(path):
        seen.append(path)
        return gguf.read_header(path)

    monkeypatch.setattr(discovery, "read_header", read)
    return seen


def test_the_pocket_model_is_always_there(scan):
    (entry,) = scan().values()
    assert entry.id == "pocket"
    assert entry.path == str(POCKET)
    assert entry.size_bytes == POCKET.stat().st_size
    assert entry.engine == "llamacpp"
    assert entry.problem == ""


def test_a_models_folder_that_is_not_there_is_empty(tmp_path):
    files = ModelFiles(engine="llamacpp", models_folder=tmp_path / "none", files=())
    assert [entry.id for entry in files.scan()] == ["pocket"]


def test_files_are_found_in_folders_below_and_by_configuration(scan, folder, tmp_path):
    (folder / "deep" / "er").mkdir(parents=True)
    write(folder / "Top-Q4.gguf", LLAMA)
    write(folder / "deep" / "er" / "low.GGUF", LLAMA)
    write(folder / ".hidden.gguf", LLAMA)
    (folder / "notes.txt").write_text("hello")
    other = write(tmp_path / "elsewhere.gguf", LLAMA)
    assert list(scan(other)) == ["pocket", "Top-Q4", "low", "elsewhere"]


def test_equal_stems_get_names_of_their_own(scan, folder, tmp_path):
    for name in ("a", "b"):
        (folder / name).mkdir()
        write(folder / name / "llama.gguf", LLAMA)
    (tmp_path / "b").mkdir()
    other = write(tmp_path / "b" / "llama.gguf", LLAMA)
    write(folder / "pocket.gguf", LLAMA)
    assert list(scan(other)) == ["pocket", "llama", "b/llama", "models/pocket", str(other)]


def test_a_file_that_is_reached_twice_is_listed_once(scan, folder, tmp_path):
    path = write(folder / "one.gguf", LLAMA)
    (tmp_path / "link.gguf").symlink_to(path)
    assert list(scan(path, tmp_path / "link.gguf", folder / ".." / "models" / "one.gguf", POCKET)) == [
        "pocket",
        "one",
    ]


def test_parts_of_a_split_model_are_one(scan, folder):
    sizes = [write(folder / f"big-{part:05d}-of-00003.gguf", LLAMA).stat().st_size for part in (1, 2, 3)]
    entry = scan()["big"]
    assert list(scan()) == ["pocket", "big"]
    assert entry.path == str(folder / "big-00001-of-00003.gguf")
    assert entry.size_bytes == sum(sizes)
    assert entry.facts.weights_bytes == 3 * 512
    assert entry.facts.parameters_count == 3 * 128


def test_a_split_model_that_lacks_a_part_has_a_problem(scan, folder):
    write(folder / "big-00001-of-00002.gguf", LLAMA)
    entry = scan()["big"]
    assert entry.facts is None
    assert "big-00002-of-00002.gguf" in entry.problem
    assert "is missing" in entry.problem


def test_unsound_files_are_listed_with_their_problem(scan, folder, tmp_path):
    (folder / "junk.gguf").write_bytes(b"junk")
    (folder / "pipe.gguf").parent.mkdir(exist_ok=True)
    os.mkfifo(folder / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    found = scan(tmp_path / "gone.gguf", tmp_path / "folder.gguf")
    assert all(found[name].facts is None for name in ("junk", "pipe", "gone", "folder"))
    assert "not a GGUF file" in found["junk"].problem
    assert "not a regular file" in found["pipe"].problem
    assert "not a regular file" in found["folder"].problem
    assert "is missing or cannot be read" in found["gone"].problem


def test_a_file_that_may_not_be_read(scan, read_only_folder, unprivileged):
    path = read_only_folder / "secret.gguf"
    read_only_folder.chmod(0o700)
    write(path, LLAMA)
    path.chmod(0)
    read_only_folder.chmod(0o755)
    with unprivileged():
        entry = scan(path)["secret"]
    assert entry.problem == f'"{path}" cannot be read: Permission denied.'


def test_a_name_that_is_no_text_is_a_problem_and_not_a_failure(scan, folder):
    path = os.fsencode(folder) + b"/\xff.gguf"
    with open(path, "wb") as file:  # noqa: PTH123 - a name that no text has
        file.write(b"x")
    entry = scan()["?"]
    assert "rename the file" in entry.problem
    assert entry.path.encode()


def test_a_header_is_read_once(scan, folder, reads):
    write(folder / "one.gguf", LLAMA)
    first = scan()
    assert len(reads) == 2
    assert scan() == first
    assert len(reads) == 2


def test_a_changed_file_is_read_again(scan, folder, reads):
    path = write(folder / "one.gguf", LLAMA)
    assert scan()["one"].facts.layers_count == 2
    write(path, LLAMA | {"llama.block_count": 3})
    os.utime(path, ns=(1, 1))
    assert scan()["one"].facts.layers_count == 3
    assert reads.count(path) == 2
    path.unlink()
    assert list(scan()) == ["pocket"]


def test_copies_share_their_facts(scan, folder, reads):
    for name in ("one", "two"):
        write(folder / f"{name}.gguf", LLAMA | {"general.name": "x"})
    found = scan()
    assert found["one"].facts is found["two"].facts
    assert scan()["two"].facts is found["one"].facts
    assert len(reads) == 3


def test_a_file_that_was_replaced_at_once_is_read_again(scan, folder, reads):
    """Equal size and time; only the inode is another."""
    path = write(folder / "one.gguf", LLAMA)
    os.utime(path, ns=(1, 1))
    assert scan()["one"].facts.layers_count == 2
    other = write(folder / "other.tmp", LLAMA | {"llama.block_count": 3})
    os.utime(other, ns=(1, 1))
    other.replace(path)
    assert scan()["one"].facts.layers_count == 3


@pytest.mark.parametrize("name", ["x-00001-of-00000", "x-00000-of-00000"])
def test_a_name_that_only_looks_split_is_a_name(scan, folder, name):
    write(folder / f"{name}.gguf", LLAMA)
    assert list(scan()) == ["pocket", name]


async def test_one_scan_serves_all_who_ask_at_the_same_time(make_engine, reads):
    import asyncio

    engine = make_engine()
    lists = await asyncio.gather(*(engine.models() for _ in range(10)))
    assert all(each == lists[0] for each in lists)
    assert len(reads) == 1


async def test_a_caller_who_leaves_does_not_take_the_list_from_others(make_engine):
    import asyncio

    engine = make_engine()
    leaving, staying = (asyncio.ensure_future(engine.models()) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert [entry.id for entry in await staying] == ["pocket"]
