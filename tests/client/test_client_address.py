"""Where clients look for the daemon."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from autotune.address import (
    SOCKET_PATH_MAX_BYTES,
    default_address,
    parse_address,
    runtime_directory,
    socket_path,
)
from autotune.errors import AddressInvalid


def test_the_runtime_folder_is_the_chosen_one():
    environment = {"AUTOTUNE_RUNTIME_DIR": "/run/mine", "XDG_RUNTIME_DIR": "/run/user/1", "HOME": "/home/a"}
    assert runtime_directory(environment) == Path("/run/mine")


def test_a_relative_runtime_folder_is_made_absolute():
    assert runtime_directory({"AUTOTUNE_RUNTIME_DIR": "run"}) == Path.cwd() / "run"


def test_the_runtime_folder_is_in_the_login_session():
    assert runtime_directory({"XDG_RUNTIME_DIR": "/run/user/1", "HOME": "/home/a"}) == Path(
        "/run/user/1/autotune"
    )


def test_without_a_login_session_every_home_has_its_own_runtime_folder():
    first, second = (runtime_directory({"HOME": home}) for home in ("/home/a", "/home/b"))
    assert first != second
    assert first.parent == Path(tempfile.gettempdir())
    assert runtime_directory({"HOME": "/home/a"}) == first


def test_an_empty_variable_counts_as_unset():
    environment = {
        "AUTOTUNE_RUNTIME_DIR": "",
        "XDG_RUNTIME_DIR": "",
        "AUTOTUNE_ADDRESS": "",
        "HOME": "/home/a",
    }
    assert default_address(environment) == f"unix:{runtime_directory({'HOME': '/home/a'})}/autotuned.sock"


@pytest.mark.parametrize("address", ["unix:/run/a.sock", "unix:///run/a.sock"])
def test_an_address_names_a_socket(address):
    assert parse_address(address) == Path("/run/a.sock")
    assert default_address({"AUTOTUNE_ADDRESS": address}) == "unix:/run/a.sock"


@pytest.mark.parametrize("address", ["/run/a.sock", "unix:a.sock", "localhost:8080", "", "unix:"])
def test_another_form_is_refused_with_the_form_that_works(address):
    with pytest.raises(AddressInvalid) as caught:
        parse_address(address)
    assert caught.value.message == (
        f'The address "{address}" is not one that autotune knows; write unix:/path/to/autotuned.sock.'
    )
    assert caught.value.reason == "ADDRESS_INVALID"


def test_a_socket_path_that_is_no_text_is_refused():
    with pytest.raises(AddressInvalid) as caught:
        parse_address("unix:/run/\udcff.sock")
    assert caught.value.message == (
        "The socket path /run/?.sock is not valid UTF-8; set AUTOTUNE_RUNTIME_DIR to a folder whose name is, "
        "such as /tmp/autotune."
    )


def test_a_socket_path_may_have_as_many_bytes_as_every_system_takes():
    folder = Path("/" + "a" * (SOCKET_PATH_MAX_BYTES - len("//autotuned.sock")))
    assert len(bytes(socket_path(folder))) == SOCKET_PATH_MAX_BYTES
    with pytest.raises(AddressInvalid):
        socket_path(folder.with_name(folder.name + "a"))


def test_the_length_of_a_socket_path_counts_bytes_not_characters():
    folder = Path("/" + "é" * 50)
    with pytest.raises(AddressInvalid) as caught:
        socket_path(folder)
    assert caught.value.message == (
        f"The socket path {folder}/autotuned.sock has 116 bytes and the operating system takes 103; "
        "set AUTOTUNE_RUNTIME_DIR to a shorter folder, such as /tmp/autotune."
    )
    assert caught.value.metadata == {"path": f"{folder}/autotuned.sock", "bytes": "116", "maxBytes": "103"}


def test_the_address_costs_no_import_of_grpc():
    program = "import sys, autotune.address; print('grpc' in sys.modules, 'google.protobuf' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_every_public_name_is_there():
    import autotune

    for name in autotune.__all__:
        assert getattr(autotune, name) is not None
    assert set(autotune.__all__) <= set(dir(autotune))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = autotune.nothing
