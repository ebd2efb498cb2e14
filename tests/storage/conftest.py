"""A database on disk, and records to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.core.record import RequestRecord
from autotuned.storage.db import Database
from autotuned.storage.requests import SqliteRequestLog

SHAPE = LoadShape(
    context_tokens=2048,
    slots_count=2,
    kv_unified=False,
    key_cache_type=KvCacheType.Q8_0,
    value_cache_type=KvCacheType.F16,
    batch_tokens=512,
    micro_batch_tokens=256,
    flash_attention=True,
    gpu_layers_count=0,
    host_prompt_cache_bytes=0,
    memory_mapped=True,
)


def make_record(request_id: str = "r1", **changes) -> RequestRecord:
    values = {
        "request_id": request_id,
        "model": "pocket",
        "engine": "llamacpp",
        "started_at": 1_790_000_000.25,
        "finish_reason": "stop",
        "error_reason": "",
        "prompt_tokens": 31,
        "cached_tokens": 12,
        "reply_tokens": 8,
        "queue_seconds": 0.001,
        "load_seconds": 0.2,
        "time_to_first_token_seconds": 0.03,
        "prefill_seconds": 0.02,
        "decode_seconds": 0.04,
        "total_seconds": 0.3,
        "decode_tokens_per_second": 812.5,
        "shape": SHAPE,
    }
    return RequestRecord(**(values | changes))


@pytest.fixture
def record():
    return make_record


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "data" / "autotune.sqlite") as database:
        yield database


@pytest.fixture
def request_log(database: Database) -> SqliteRequestLog:
    return SqliteRequestLog(database)
