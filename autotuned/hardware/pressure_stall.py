"""How long processes wait for memory, as Linux tells it in pressure stall information.

``hardware.memory`` reads the files; this parses them. Documentation/accounting/psi.rst.
"""

from __future__ import annotations

import re

_SOME_10_SECONDS = re.compile(r"^some avg10=(\d{1,3}\.\d{1,6})\b", re.MULTILINE | re.ASCII)


def parse_stalled_ratio(text: str) -> float | None:
    """The share of the last 10 s in which some process waited, 0 to 1; None where the text does not say."""
    percent = _SOME_10_SECONDS.search(text)
    return min(1.0, float(percent[1]) / 100) if percent else None
