"""The instruction sets that matter for inference, by the names that each system has for them.

``hardware.cpuinfo`` asks with the flags of /proc/cpuinfo, ``hardware.apple`` with the variables of macOS.
Everybody else sees one name for each. Sources: Linux arch/x86/include/asm/cpufeatures.h,
Documentation/arch/arm64/elf_hwcaps.rst; sysctl(8) of macOS.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

LINUX_FLAGS = (
    ("sse4_2", "SSE4.2"),
    ("avx", "AVX"),
    ("f16c", "F16C"),
    ("fma", "FMA"),
    ("avx2", "AVX2"),
    ("avx_vnni", "AVX_VNNI"),
    ("avx512f", "AVX512"),
    ("avx512_vnni", "AVX512_VNNI"),
    ("avx512_bf16", "AVX512_BF16"),
    ("amx_tile", "AMX"),
    ("neon", "NEON"),
    ("asimd", "NEON"),
    ("asimdhp", "FP16"),
    ("asimddp", "DOTPROD"),
    ("i8mm", "I8MM"),
    ("bf16", "BF16"),
    ("sve", "SVE"),
    ("sve2", "SVE2"),
    ("sme", "SME"),
)

MACOS_VARIABLES = (
    ("hw.optional.sse4_2", "SSE4.2"),
    ("hw.optional.avx1_0", "AVX"),
    ("hw.optional.f16c", "F16C"),
    ("hw.optional.fma", "FMA"),
    ("hw.optional.avx2_0", "AVX2"),
    ("hw.optional.avx512f", "AVX512"),
    ("hw.optional.neon", "NEON"),
    ("hw.optional.AdvSIMD", "NEON"),
    ("hw.optional.arm.FEAT_FP16", "FP16"),
    ("hw.optional.arm.FEAT_DotProd", "DOTPROD"),
    ("hw.optional.arm.FEAT_I8MM", "I8MM"),
    ("hw.optional.arm.FEAT_BF16", "BF16"),
    ("hw.optional.arm.FEAT_SME", "SME"),
)


def named(known: tuple[tuple[str, str], ...], present: AbstractSet[str]) -> tuple[str, ...]:
    """Our names of what is present, in the order of the table, each once."""
    return tuple(dict.fromkeys(name for flag, name in known if flag in present))
