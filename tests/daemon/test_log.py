"""Logs: the form of a line, where it goes, and that a line which cannot be written hurts nobody."""

from __future__ import annotations

import logging
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuned.core.settings import DaemonSettings
from autotuned.log import FILES_KEPT, LineFormatter, LogFile, configure, fields

log = logging.getLogger("autotuned.services.models")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "autotuned.log"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("autotuned")
    levels, handlers = (root.level, ours.level), list(root.handlers)
    yield
    for handler in [each for each in root.handlers if each not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def record(message: str, *args, **values) -> logging.LogRecord:
    made = logging.LogRecord("autotuned.services.models", logging.INFO, __file__, 1, message, args, None)
    vars(made).update(fields(**values))
    return made


def line(message: str, *args, **values) -> str:
    return LineFormatter().format(record(message, *args, **values))


def test_a_line():
    made = record("loaded", model="pocket", seconds=0.21, tokens=31, path=Path("/a b"), empty="", none=None)
    made.created, made.msecs = 1_795_467_600.123, 123.4
    expected = 'loaded model=pocket seconds=0.21 tokens=31 path="/a b" empty="" none=None'
    assert LineFormatter().format(made) == f"2026-11-23T21:00:00.123Z INFO services.models {expected}"


@pytest.mark.parametrize(
    "hostile", ["a\nINFO b", "a\r\nb", "\x1b[2J", "\x9b2J", "\u2028", "a\x00b", "\udce9"]
)
def test_no_value_begins_a_line_or_steers_a_terminal(hostile):
    for text in (line(hostile), line("said %s", hostile), line("said", value=hostile)):
        assert text.isprintable()


def test_a_quote_in_a_value_stays_within_it():
    assert line("x", value='a" b="c').endswith('value="a\\" b=\\"c"')


def fail() -> None:
    raise ValueError("first\n2026-11-23T21:00:00.123Z INFO forged")


def test_a_traceback_is_indented():
    try:
        fail()
    except ValueError:
        made = logging.LogRecord("autotuned", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    first, *rest = LineFormatter().format(made).split("\n")
    assert first.endswith("ERROR autotuned failed")
    assert "    ValueError: first" in rest
    assert all(each.startswith("    ") for each in rest)


def test_ours_at_the_level_and_libraries_from_warning_on(file: Path):
    configure(DaemonSettings(log_level="debug", log_file=str(file)))
    log.debug("mine")
    logging.getLogger("peewee").debug("SELECT 'what the user wrote'")
    logging.getLogger("httpx").info("GET http://x")
    logging.getLogger("asyncio").warning("slow")
    configure(DaemonSettings(log_level="error", log_file=str(file)))
    log.warning("too little")
    said = [text.split(" ", 1)[1] for text in file.read_text().splitlines()]
    assert said == ["DEBUG services.models mine", "WARNING asyncio slow"]


def test_configuring_again_moves_the_log(file: Path, capfd: pytest.CaptureFixture[str]):
    configure(DaemonSettings(log_file=str(file)))
    configure(DaemonSettings())
    log.info("here")
    assert file.read_text() == ""
    assert capfd.readouterr().err.count("here") == 1


def test_the_file_is_the_owners(file: Path):
    file.parent.mkdir()
    file.touch(mode=0o644)
    configure(DaemonSettings(log_file=str(file)))
    log.info("private")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_large_file_moves_aside(file: Path):
    handler = LogFile(file, max_bytes=300)
    handler.setFormatter(LineFormatter())
    for number in range(50):
        handler.handle(record("event", number=number, padding="x" * 60))
    handler.close()
    names = [file, *(Path(f"{file}.{number}") for number in range(1, FILES_KEPT + 1))]
    assert sorted(file.parent.iterdir()) == names
    numbers = [int(n) for name in reversed(names) for n in re.findall(r"number=(\d+)", name.read_text())]
    assert numbers == list(range(50))[-len(numbers) :]
    assert all(0 < name.stat().st_size <= 300 for name in names)
    assert all(stat.S_IMODE(name.stat().st_mode) == 0o600 for name in names)


def test_a_file_that_cannot_move_aside_grows_on(file: Path):
    handler = LogFile(file, max_bytes=100)
    Path(f"{file}.1").mkdir()
    (Path(f"{file}.1") / "in the way").touch()
    Path(f"{file}.2").mkdir()
    (Path(f"{file}.2") / "in the way").touch()
    Path(f"{file}.3").touch()
    handler.setFormatter(LineFormatter())
    for number in range(5):
        handler.handle(record("event", number=number, padding="x" * 60))
    handler.close()
    assert re.findall(r"number=(\d+)", file.read_text()) == list("01234")


def test_a_device_keeps_its_mode_and_its_name():
    before = Path("/dev/null").stat()
    handler = LogFile(Path("/dev/null"), max_bytes=10)
    for _ in range(3):
        handler.handle(record("event that is longer than the limit"))
    handler.close()
    after = Path("/dev/null").stat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


def test_a_full_disk_loses_lines_and_nothing_else(capfd: pytest.CaptureFixture[str]):
    """/dev/full answers every write with ENOSPC."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    configure(DaemonSettings(log_file="/dev/full"))
    for _ in range(3):
        log.error("lost")
    assert capfd.readouterr().err == ""


LIMITED = """
import logging, resource, sys
from autotuned.core.settings import DaemonSettings
from autotuned.log import configure
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
configure(DaemonSettings(log_file=sys.argv[1]))
log = logging.getLogger("autotuned.x")
for number in range(50):
    log.info("before %d", number)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.info("after")
"""


def test_a_line_that_was_cut_short_does_not_swallow_the_next(file: Path):
    ended = subprocess.run([sys.executable, "-c", LIMITED, file], capture_output=True, timeout=30, check=True)
    assert ended.stderr == b""
    *whole, cut, last = file.read_text().splitlines()
    assert all(re.fullmatch(r"\S+Z INFO x before \d+", each) for each in whole)
    assert sum(len(each) + 1 for each in whole) + len(cut) == 1000
    assert last.endswith("INFO x after")


@pytest.mark.parametrize("name", ["{folder}", "/dev/null/x", "~nobody-has-this-name/x", "a\0b"])
def test_a_file_that_cannot_be_opened_is_said_on_standard_error(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    configure(DaemonSettings(log_file=name.format(folder=tmp_path)))
    log.info("still here")
    warning, said = capfd.readouterr().err.splitlines()
    assert "WARNING log no log file, logging here" in warning
    assert said.endswith("still here")


def test_a_reader_of_standard_error_that_has_gone_disturbs_nobody():
    program = (
        "import logging, os; from autotuned.core.settings import DaemonSettings; from autotuned.log import configure\n"
        "configure(DaemonSettings()); read, write = os.pipe(); os.dup2(write, 2); os.close(write); os.close(read)\n"
        "logging.getLogger('autotuned').info('nobody reads'); os._exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 7


def test_a_message_whose_arguments_do_not_fit_is_lost_quietly(file: Path):
    configure(DaemonSettings(log_file=str(file)))
    handler = next(each for each in logging.getLogger().handlers if isinstance(each, LogFile))
    handler.handle(record("%d tokens", "many"))
    handler.handle(record("next"))
    assert [text.split(" ", 1)[1] for text in file.read_text().splitlines()] == ["INFO services.models next"]
