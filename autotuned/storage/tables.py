"""The tables as peewee models, column for column what ``storage.migrations`` makes.

Used by the other files of ``storage``. Invariant: no model is bound to a database; every query
names the one it runs on (``query.execute(database.sqlite)``), so that two can live in a process.
"""

from __future__ import annotations

from peewee import AutoField, BooleanField, FloatField, IntegerField, Model, TextField


class RequestRow(Model):
    """One finished request; the columns of the shape are null where there was none."""

    id = AutoField()
    request_id = TextField(unique=True)
    model = TextField()
    engine = TextField()
    started_at = FloatField(index=True)
    finish_reason = TextField()
    error_reason = TextField()
    prompt_tokens = IntegerField()
    cached_tokens = IntegerField()
    reply_tokens = IntegerField()
    queue_seconds = FloatField()
    load_seconds = FloatField()
    time_to_first_token_seconds = FloatField()
    prefill_seconds = FloatField()
    decode_seconds = FloatField()
    total_seconds = FloatField()
    decode_tokens_per_second = FloatField()
    context_tokens = IntegerField(null=True)
    slots_count = IntegerField(null=True)
    key_cache_type = TextField(null=True)
    value_cache_type = TextField(null=True)
    batch_tokens = IntegerField(null=True)
    micro_batch_tokens = IntegerField(null=True)
    flash_attention = BooleanField(null=True)
    gpu_layers_count = IntegerField(null=True)
    kv_unified = BooleanField(null=True)
    host_prompt_cache_bytes = IntegerField(null=True)
    memory_mapped = BooleanField(null=True)
    assumed = TextField(null=True)

    class Meta:
        """Names the table; peewee reads it."""

        table_name = "requests"


class LearnedModelRow(Model):
    """What is known of one model content; ``loads_json`` is a list of ``core.learning.MeasuredLoad``."""

    digest = TextField(primary_key=True)
    loads_json = TextField()
    prefill_tokens_per_second = FloatField()
    tokens_per_byte = FloatField()
    usual_context_tokens = IntegerField()

    class Meta:
        """Names the table; peewee reads it."""

        table_name = "learned_models"


class SessionRow(Model):
    """What one session came to."""

    session = TextField(primary_key=True)
    client = TextField()
    model_digest = TextField()
    kind = TextField()
    largest_tokens = IntegerField()
    turns_count = IntegerField()
    ended_at = FloatField(index=True)

    class Meta:
        """Names the table; peewee reads it."""

        table_name = "sessions"


class PrefixRow(Model):
    """One saved KV prefix; ``boundaries`` and ``boundary_tokens`` are words with a space between."""

    id = TextField(primary_key=True)
    model_id = TextField()
    file_name = TextField(unique=True)
    boundaries = TextField()
    boundary_tokens = TextField()
    tokens_count = IntegerField()
    bytes_count = IntegerField()
    sha256 = TextField()
    prefill_seconds = FloatField()
    created_at = FloatField()
    last_used_at = FloatField()
    conversation_id = TextField()

    class Meta:
        """Names the table; peewee reads it."""

        table_name = "prefixes"
