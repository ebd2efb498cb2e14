"""What a version of Ollama can do. ``engine`` asks when the server has told its version.

Invariant: what is not certain for a version is not declared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OLDEST_TEXT = "0.12.6"
# Cuts no prompt when it is told not to, from here on; before, it does so without a word.
_OLDEST = (0, 12, 6)
_LOGPROBS = (0, 12, 11)
# A word for how long to think is taken for every model that thinks, not for gpt-oss alone.
_THINKING_LEVELS = (0, 30, 0)
_CACHED_COUNTS = (0, 33, 3)
# What somebody built from a copy of the source.
_SOURCE_BUILD = (0, 0, 0)

_NUMBERS = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Features:
    """What depends on the version."""

    is_new_enough: bool = True
    logprobs: bool = False
    thinking_levels: bool = False
    cached_counts: bool = False


def features_of(version: str) -> Features:
    """The features of a version; of one that is not known, those of the oldest that will do."""
    match = _NUMBERS.match(version)
    if match is None:
        return Features()
    numbers = tuple(int(number) for number in match.groups())
    if numbers == _SOURCE_BUILD:
        return Features(logprobs=True)
    return Features(
        is_new_enough=numbers >= _OLDEST,
        logprobs=numbers >= _LOGPROBS,
        thinking_levels=numbers >= _THINKING_LEVELS,
        cached_counts=numbers >= _CACHED_COUNTS,
    )
