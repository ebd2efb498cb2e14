"""The processor as /proc/cpuinfo tells it, which is different for each architecture.

``hardware.cpu`` reads the file and joins it with what lies under /sys. Pure functions of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotuned.hardware.arm_cores import core_name
from autotuned.hardware.instruction_sets import LINUX_FLAGS, named
from autotuned.hardware.texts import whole_number


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuInfo:
    """One entry in ``cores`` for each logical core: package and core, None where the text has none."""

    model: str
    instruction_sets: tuple[str, ...]
    cores: Mapping[int, tuple[int, int] | None]


def parse_cpuinfo(text: str) -> CpuInfo:
    """What the text tells; an empty model and no cores where it tells nothing."""
    blocks = [_fields(block) for block in text.split("\n\n")]
    processors = [block for block in blocks if "processor" in block]
    flags = {
        flag
        for block in processors[:1]
        for key in ("flags", "Features")
        for flag in block.get(key, "").split()
    }
    return CpuInfo(
        model=_model(processors),
        instruction_sets=named(LINUX_FLAGS, flags),
        cores={
            number: _core(block)
            for block in processors
            if (number := whole_number(block["processor"])) is not None
        },
    )


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _model(processors: list[dict[str, str]]) -> str:
    """The first name that there is; on ARM the kinds of cores, those of the last block first.

    Linux numbers the small cores of an ARM processor first as a rule, and the large ones give it its name.
    """
    for block in processors:
        if name := block.get("model name"):
            return " ".join(name.split())
    kinds = dict.fromkeys(_arm_core(block) for block in reversed(processors))
    return " + ".join(kind for kind in kinds if kind)


def _arm_core(block: dict[str, str]) -> str:
    try:
        return core_name(int(block["CPU implementer"], 16), int(block["CPU part"], 16))
    except (KeyError, ValueError):
        return ""


def _core(block: dict[str, str]) -> tuple[int, int] | None:
    package, core = whole_number(block.get("physical id", "")), whole_number(block.get("core id", ""))
    return None if package is None or core is None else (package, core)
