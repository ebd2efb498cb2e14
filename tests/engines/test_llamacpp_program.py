"""What a llama-server says of itself, and the command line that is made of it."""

import pytest

from autotuned.engines.llamacpp import binary as binary_module
from autotuned.engines.llamacpp.binary import BinaryUnusable, devices_in, examine, options_in
from autotuned.engines.llamacpp.command_line import NEEDED, command_line, log_level_in, missing_options
from tests.engines.processes import descendants, is_alive, until
from tests.fakes.llama_server import H100, VERSION, installed, script

SETTINGS = {
    "model": "/m.gguf",
    "alias": "m",
    "socket": "/w.sock",
    "cells_count": 4096,
    "slots_count": 2,
    "kv_unified": False,
    "key_cache_type": "q8_0",
    "value_cache_type": "f16",
    "batch_tokens": 512,
    "micro_batch_tokens": 256,
    "flash_attention": True,
    "gpu_layers_count": 5,
    "prefix_folder": "/p/",
    "memory_mapped": True,
    "host_prompt_cache_mib": 7,
    "context_checkpoints_count": 2,
    "threads_count": 3,
    "http_threads_count": 5,
}


# What a program says.


async def test_a_program_says_what_it_is(tmp_path):
    found = await examine(installed(tmp_path, devices=[H100]))
    assert found.version == VERSION
    assert found.accelerator == "CUDA0: NVIDIA H100"
    assert found.has_gpu
    assert found.log_level == "4"
    assert found.options["--flash-attn"] == found.options["-fa"]
    assert found.options["-fa"].startswith("[on|off|auto] ")
    assert "--nothing" not in found.options
    assert found.identity == f"llama-server {VERSION} sha256:{found.digest[:16]}"


async def test_builds_that_differ_have_another_identity(tmp_path):
    path = installed(tmp_path)
    first = await examine(path)
    assert (await examine(path)).identity == first.identity
    library = tmp_path / "libggml-cuda.so"
    library.write_bytes(b"x")
    second = await examine(path)
    path.write_text(path.read_text() + "\n")
    third = await examine(path)
    assert len({first.identity, second.identity, third.identity}) == 3
    (tmp_path / "notes.txt").write_text("x")
    assert (await examine(path)).identity == third.identity


def test_devices():
    text = (
        "Available devices:\n"
        f"  {H100}\n"
        "  Vulkan0: AMD Radeon (RADV NAVI31) (24560 MiB, 24000 MiB free)\n"
        "  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n"
        "  RPC0: 10.0.0.1:50052 (8192 MiB, 8192 MiB free)\n"
    )
    found = devices_in(text)
    assert [(device.name, device.is_gpu) for device in found] == [
        ("CUDA0", True),
        ("Vulkan0", True),
        ("BLAS", False),
        ("RPC0", False),
    ]
    assert found[1].description == "AMD Radeon (RADV NAVI31)"
    assert found[0].memory_bytes == 81559 << 20
    assert devices_in("Available devices:\n  (none)\n") == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("echo hello", "is not a llama-server"),
        ("echo 'error: invalid argument: --version'; exit 1", r'ended with status 1 and "error: invalid'),
        ("exit 3", "--version ended with status 3$"),
        (
            '[ "$1" = --version ] && echo "version: 1" || echo "-c, --ctx-size N"',
            "too old: it does not know --model, ",
        ),
        (
            "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done",
            "did not answer --version",
        ),
    ],
    ids=["other program", "refusal", "silent", "old", "endless"],
)
async def test_a_program_that_cannot_run_models(tmp_path, text, sentence):
    with pytest.raises(BinaryUnusable, match=sentence):
        await examine(script(tmp_path / "llama-server", text))


async def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(binary_module, "PROBE_SECONDS", 0.3)
    before = descendants()
    with pytest.raises(BinaryUnusable, match=r"did not answer --version within 0\.3 seconds"):
        await examine(script(tmp_path / "llama-server", "sleep 60 & sleep 60"))
    await until(lambda: descendants() <= before, "both are gone")


async def test_what_a_program_leaves_behind_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(binary_module, "PROBE_SECONDS", 0.3)
    left = tmp_path / "left"
    with pytest.raises(BinaryUnusable, match=r"did not answer --version within 0\.3 seconds"):
        await examine(script(tmp_path / "llama-server", f"sleep 60 & echo $! > {left}; echo version: 1"))
    process_id = int(left.read_text())
    await until(lambda: not is_alive(process_id), "it is gone")


async def test_a_file_that_is_no_program(tmp_path):
    path = tmp_path / "llama-server"
    path.write_bytes(b"\x7fELFnonsense")
    path.chmod(0o755)
    with pytest.raises(BinaryUnusable, match="cannot be started"):
        await examine(path)


# What it is told.


def every_option():
    return {name: "[on|off|auto]" for names in NEEDED for name in names}


def test_only_options_that_the_program_knows_are_used():
    known = every_option()
    words = command_line(known, SETTINGS, log_level="")
    assert {word for word in words if word.startswith("--")} <= set(known)
    assert "--fit" not in words
    assert "--fit" in command_line(known | {"--fit": ""}, SETTINGS, log_level="")


def test_the_shape_is_in_the_command_line():
    known = every_option() | {"--no-kv-unified": "", "--mmap": "", "--log-verbosity": ""}
    words = command_line(known, SETTINGS, log_level="4")
    text = " ".join(words)
    for part in (
        "--model /m.gguf",
        "--ctx-size 4096",
        "--parallel 2 --no-kv-unified",
        "--batch-size 512 --ubatch-size 256",
        "--cache-type-k q8_0 --cache-type-v f16 --flash-attn on",
        "--n-gpu-layers 5 --load-mode mmap",
        "--cache-ram 7",
        "--ctx-checkpoints 2",
        "--alias m --host /w.sock",
        "--threads 3 --threads-batch 3 --threads-http 5",
        "--slot-save-path /p/",
        "--log-verbosity 4",
    ):
        assert part in text
    other = SETTINGS | {"kv_unified": True, "flash_attention": False, "memory_mapped": False}
    text = " ".join(command_line(known, other, log_level=""))
    assert "--parallel 2 --kv-unified" in text
    assert "--flash-attn off" in text
    assert "--load-mode none" in text
    del known["--load-mode"]
    assert "--no-mmap" in command_line(known, other, log_level="")
    assert "--mmap" in command_line(known, SETTINGS, log_level="")


def test_what_memory_depends_on_must_be_there():
    known = every_option()
    assert missing_options(known) == ()
    assert missing_options(known | {"--flash-attn": "enable it"}) == ("--flash-attn on|off",)
    del known["--cache-ram"], known["--ctx-checkpoints"]
    assert missing_options(known) == ("--cache-ram",)
    del known["--swa-checkpoints"]
    assert missing_options(known) == ("--cache-ram", "--ctx-checkpoints")


def test_the_level_that_shows_buffers_depends_on_the_build():
    assert log_level_in("--log-verbosity N\n  - 3: info\n   - 4: trace (more info)\n") == "4"
    assert log_level_in("--log-verbosity N\n  - 3: info\n   - 4: debug\n") == "3"
    assert log_level_in("--log-verbosity N   set it\n") == ""


def test_options_are_read_from_the_help():
    text = (
        "-kvu,  --kv-unified, -no-kvu, --no-kv-unified\n"
        "                                        use --cache-ram or not\n"
        "-fa,   --flash-attn [on|off|auto]       set it\n"
        "--mlock                                 DEPRECATED in favor of `--load-mode`\n"
    )
    assert options_in(text) == {
        "-kvu": "",
        "--kv-unified": "",
        "-no-kvu": "",
        "--no-kv-unified": "",
        "-fa": "[on|off|auto]       set it",
        "--flash-attn": "[on|off|auto]       set it",
        "--mlock": "DEPRECATED in favor of `--load-mode`",
    }
