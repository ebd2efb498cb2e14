"""llama.cpp as somebody starts it who sets the context alone, or nothing. Prints one line of JSON.

    python by_hand.py MODEL CONTEXT SLOTS PROMPT

``kv_memory`` runs it as a process of its own. What is not named here is the library's default.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import psutil
import xllamacpp

ANSWER_TOKENS = 64
KV_SIZE = re.compile(r"KV buffer size = +([0-9.]+) MiB")


def main(model: str, context_tokens: int, slots_count: int, prompt: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = context_tokens
    params.n_parallel = slots_count
    params.kv_unified = slots_count > 1
    params.fit_params = False  # it would shrink the context to what is free and hide what is asked for
    params.verbosity = 4
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        server = xllamacpp.Server(params)
        answer = server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": prompt}],
                "temperature": 0.0,
                "max_tokens": ANSWER_TOKENS,
            }
        )
        os.dup2(kept, 2)
        log.seek(0)
        text = log.read().decode(errors="replace")
    sizes = [float(size) for size in KV_SIZE.findall(text)]
    sys.stdout.write(
        json.dumps(
            {
                "text": answer["choices"][0]["message"]["content"],
                "context_tokens": context_tokens,
                "kv_cache_bytes": round(sum(sizes) * 2**20),
                "resident_bytes": psutil.Process().memory_info().rss,
            }
        )
        + "\n"
    )
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
