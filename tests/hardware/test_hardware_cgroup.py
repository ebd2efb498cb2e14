"""Limits of the control groups around the process, from the texts that systems wrote, and from nonsense."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuned.hardware.cgroup import ControlGroups, GroupMemory, reclaimable_bytes, tightest
from autotuned.hardware.cgroup_paths import UNIFIED, parse_memberships, parse_mounts
from autotuned.hardware.texts import parse_counters
from tests.hardware import recorded as texts

MIB = 1 << 20
UNLIMITED = GroupMemory()


def v1_machine(groups: dict[str, dict[str, object]], **files: str) -> dict[str, str]:
    return {
        "proc/self/cgroup": texts.V1_CGROUP,
        "proc/self/mountinfo": texts.V1_MOUNTINFO,
        **{
            f"sys/fs/cgroup/memory{group}/memory.{name}": f"{content}\n"
            for group, values in groups.items()
            for name, content in values.items()
        },
        **files,
    }


def v2_machine(groups: dict[str, dict[str, object]], cgroup=texts.V2_CGROUP, mounts=texts.V2_MOUNTINFO):
    return {
        "proc/self/cgroup": cgroup,
        "proc/self/mountinfo": mounts,
        **{
            f"sys/fs/cgroup{group}/memory.{name}": f"{content}\n"
            for group, values in groups.items()
            for name, content in values.items()
        },
    }


def test_memberships():
    assert parse_memberships(texts.V1_CGROUP) == {
        "name=systemd": "/",
        "pids": "/",
        "memory": "/jobs/one",
        "cpu": "/",
        "cpuacct": "/",
        UNIFIED: "/",
    }
    assert parse_memberships("7:memory:/with:colons/and spaces\n")["memory"] == "/with:colons/and spaces"


def test_mounts():
    mounts = {mount.point: mount for mount in parse_mounts(texts.V1_MOUNTINFO)}
    assert set(mounts) == {
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/systemd",
        "/sys/fs/cgroup/unified",
    }
    assert "memory" in mounts["/sys/fs/cgroup/memory"].options
    assert parse_mounts(texts.DOCKER_V1_MOUNTINFO)[0].root == "/docker/5a2b0c9f"
    assert parse_mounts(r"1 2 0:3 / /a\040b\134c rw - cgroup2 x rw")[0].point == "/a b\\c"


@pytest.mark.parametrize("text", [texts.V1_STAT, texts.V2_STAT])
def test_mapped_files_are_in_use_and_other_cache_is_not(text):
    kernel = parse_counters(text).get("slab_reclaimable", 0)
    assert reclaimable_bytes(parse_counters(text)) == 200_000 + 100_000 - (110_000 - 10_000) + kernel


def test_no_limit_of_version_1_is_no_limit(make_machine):
    values = {"limit_in_bytes": texts.V1_NO_LIMIT, "usage_in_bytes": 1000, "stat": texts.V1_STAT}
    root = make_machine(v1_machine({"/jobs/one": values, "": values}))
    assert ControlGroups(root).read() == UNLIMITED


def test_version_1_counts_cache_as_available(make_machine):
    values = {
        "limit_in_bytes": 64 * MIB,
        "usage_in_bytes": 40 * MIB,
        "stat": texts.V1_STAT,
        "memsw.limit_in_bytes": 65 * MIB,
    }
    root = make_machine(v1_machine({"/jobs/one": values, "": {"limit_in_bytes": texts.V1_NO_LIMIT}}))
    assert ControlGroups(root).read() == GroupMemory(
        limit_bytes=64 * MIB,
        available_bytes=24 * MIB + 200_000,
        swap_limit_bytes=MIB,
        swap_free_bytes=MIB - 5000,
    )


def test_the_tightest_group_on_the_way_up_holds(make_machine):
    root = make_machine(
        v1_machine(
            {
                "/jobs/one": {"limit_in_bytes": 64 * MIB, "usage_in_bytes": MIB},
                "/jobs": {"limit_in_bytes": 128 * MIB, "usage_in_bytes": 120 * MIB},
                "": {"limit_in_bytes": texts.V1_NO_LIMIT},
            }
        )
    )
    read = ControlGroups(root).read()
    assert (read.limit_bytes, read.available_bytes) == (64 * MIB, 8 * MIB)


def test_a_group_that_does_not_count_its_children_limits_none_of_them(make_machine):
    root = make_machine(
        v1_machine(
            {
                "/jobs/one": {"limit_in_bytes": 64 * MIB, "usage_in_bytes": MIB},
                "/jobs": {"limit_in_bytes": 2 * MIB, "usage_in_bytes": MIB, "use_hierarchy": 0},
            }
        )
    )
    assert ControlGroups(root).read().limit_bytes == 64 * MIB


def test_a_limit_of_a_group_out_of_sight_holds(make_machine):
    stat = f"hierarchical_memory_limit {16 * MIB}\ntotal_inactive_file 0"
    values = {"limit_in_bytes": texts.V1_NO_LIMIT, "usage_in_bytes": 4 * MIB, "stat": stat}
    files = v1_machine({"": values}, **{"proc/self/cgroup": texts.DOCKER_V1_CGROUP})
    files["proc/self/mountinfo"] = texts.DOCKER_V1_MOUNTINFO
    read = ControlGroups(make_machine(files)).read()
    assert (read.limit_bytes, read.available_bytes) == (16 * MIB, 12 * MIB)


def test_version_2_on_a_desktop(make_machine):
    service = "/user.slice/user-1000.slice/user@1000.service/app.slice/autotuned.service"
    root = make_machine(
        v2_machine(
            {
                service: {
                    "max": "max",
                    "high": 96 * MIB,
                    "current": 50 * MIB,
                    "stat": texts.V2_STAT,
                    "swap.max": "max",
                },
                "/user.slice/user-1000.slice": {
                    "max": 512 * MIB,
                    "high": "max",
                    "current": 500 * MIB,
                    "stat": "inactive_file 0",
                    "swap.max": 8 * MIB,
                    "swap.current": 3 * MIB,
                },
                "/user.slice": {"max": "max", "high": "max", "current": 600 * MIB},
            }
        )
    )
    groups = ControlGroups(root)
    assert groups.read() == GroupMemory(
        limit_bytes=96 * MIB,
        available_bytes=12 * MIB,
        swap_limit_bytes=8 * MIB,
        swap_free_bytes=5 * MIB,
    )
    assert groups.unified_folder == root / f"sys/fs/cgroup{service}"


@pytest.mark.parametrize("cgroup", [texts.DOCKER_V2_CGROUP, "0::/docker/not-shown-inside\n"])
def test_version_2_in_a_container(make_machine, cgroup):
    values = {"max": 64 * MIB, "high": "max", "current": 60 * MIB, "stat": texts.V2_STAT}
    root = make_machine(v2_machine({"": values}, cgroup, texts.DOCKER_V2_MOUNTINFO))
    read = ControlGroups(root).read()
    assert (read.limit_bytes, read.available_bytes) == (64 * MIB, 4 * MIB + 250_000)


def test_a_process_that_was_moved_is_found_again(make_machine):
    limited = {"limit_in_bytes": 8 * MIB, "usage_in_bytes": 0}
    root = make_machine(v1_machine({"/jobs/one": limited, "/two": {**limited, "limit_in_bytes": 4 * MIB}}))
    groups = ControlGroups(root)
    assert groups.read().limit_bytes == 8 * MIB
    (root / "proc/self/cgroup").write_text("4:memory:/two\n")
    assert groups.read().limit_bytes == 4 * MIB


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": texts.V1_CGROUP},
        {"proc/self/mountinfo": texts.V1_MOUNTINFO},
        {"proc/self/cgroup": "0::/../../elsewhere\n", "proc/self/mountinfo": texts.V2_MOUNTINFO},
        {"proc/self/cgroup": "0::/a\0b\n", "proc/self/mountinfo": texts.V2_MOUNTINFO},
        v2_machine({"": {"max": "-1", "high": "lots", "current": "", "stat": "\0"}}, texts.DOCKER_V2_CGROUP),
        v2_machine({"": {"max": "9" * 5000, "current": "1"}}, texts.DOCKER_V2_CGROUP),
        v2_machine({"": {"max/is-a-folder": ""}}, texts.DOCKER_V2_CGROUP),
    ],
)
def test_what_cannot_be_read_is_left_out(make_machine, files):
    assert ControlGroups(make_machine(files)).read() == UNLIMITED


def test_a_group_whose_use_cannot_be_read_still_has_its_limit(make_machine):
    root = make_machine(v2_machine({"": {"max": MIB}}, texts.DOCKER_V2_CGROUP))
    assert ControlGroups(root).read() == GroupMemory(limit_bytes=MIB)


def test_a_group_that_may_not_be_read_is_left_out(make_machine, unprivileged):
    root = make_machine(v2_machine({"": {"max": MIB, "current": 0}}, texts.DOCKER_V2_CGROUP))
    (root / "sys/fs/cgroup").chmod(0)
    with unprivileged():
        assert ControlGroups(root).read() == UNLIMITED
    (root / "sys/fs/cgroup").chmod(0o700)


figures = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["max", "", " ", "0\n", "٣", "1e9", "0x10", texts.V1_NO_LIMIT, "1" * 5000]),
    st.text(max_size=8),
)
stats = st.one_of(st.sampled_from([texts.V1_STAT, texts.V2_STAT]), st.text(max_size=60))
levels = st.dictionaries(
    st.sampled_from(
        ["max", "high", "current", "swap.max", "swap.current", "limit_in_bytes", "usage_in_bytes"]
    ),
    figures,
)


def damaged(text: str) -> st.SearchStrategy[str]:
    """A recorded text with a piece of it replaced."""
    return st.builds(
        lambda start, length, patch: text[:start] + patch + text[start + length :],
        st.integers(0, len(text)),
        st.integers(0, 12),
        st.text(st.characters(codec="utf-8"), max_size=6),
    )


@settings(deadline=None, max_examples=60)
@given(
    cgroup=st.one_of(damaged(texts.V1_CGROUP), damaged(texts.V2_CGROUP), damaged(texts.DOCKER_V2_CGROUP)),
    mounts=st.one_of(damaged(texts.V1_MOUNTINFO), damaged(texts.V2_MOUNTINFO)),
    levels=st.lists(levels, min_size=2, max_size=2),
    stat=stats,
)
def test_no_nonsense_makes_it_fail(cgroup, mounts, levels, stat):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for group, values in zip(("", "/memory/jobs/one"), levels, strict=True):
            place = root / f"sys/fs/cgroup{group}"
            place.mkdir(parents=True, exist_ok=True)
            for name, content in {**values, "stat": stat}.items():
                (place / f"memory.{name}").write_text(content, encoding="utf-8", errors="replace")
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(cgroup)
        (root / "proc/self/mountinfo").write_text(mounts)
        read = ControlGroups(root).read()
    assert read.available_bytes is None or 0 <= read.available_bytes <= read.limit_bytes
    assert read.swap_free_bytes is None or 0 <= read.swap_free_bytes <= read.swap_limit_bytes


@given(st.text(max_size=200))
def test_parsers_take_any_text(text):
    assert all(path.startswith("/") for path in parse_memberships(text).values())
    assert all(mount.file_system.startswith("cgroup") for mount in parse_mounts(text))


def test_no_groups_leave_everything():
    assert tightest([]) == UNLIMITED
