"""What the daemon's process never carries: the engine itself, and what is heavy."""

import subprocess
import sys


def test_the_engine_is_loaded_without_what_only_workers_need():
    program = (
        "import sys, autotuned.engines.llamacpp.engine, autotuned.engines.downloads.downloader, autotuned.engines.downloads.worker_process;"
        "heavy = {'xllamacpp', 'numpy', 'gguf', 'httpx', 'huggingface_hub', 'ctypes'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == ""


def test_the_guard_is_small():
    program = (
        "import runpy, sys;"
        "sys.argv = ['guard.py'];"
        "before = set(sys.modules);"
        "namespace = runpy.run_path(sys.orig_argv[-1], run_name='guard');"
        "print(namespace['main']());"
        "print(len(set(sys.modules) - before))"
    )
    guard = "autotuned/engines/guard.py"
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, guard], capture_output=True, text=True, check=True
    )
    status, modules_count = ended.stdout.split()
    assert status == "64"
    assert "usage:" in ended.stderr
    assert int(modules_count) < 40
