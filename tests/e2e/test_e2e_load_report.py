"""What a load and the first request after it report is what the worker has, not what was hoped for."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import autotune
from autotune.v1 import model_pb2, model_service_pb2

from tests.e2e.test_e2e_generate import ask, events_of


def test_a_load_reports_the_applied_shape_and_no_request_of_its_own(own_daemon):
    with autotune.Client(own_daemon.address) as client:
        loaded = list(client.load_model(model_service_pb2.LoadModelRequest()))[-1].loaded
        assert loaded.plan.shape == loaded.running_model.shape == client.list_running_models()[0].shape
        assert loaded.running_model.state == model_pb2.MODEL_STATE_READY
        assert loaded.running_model.active_requests_count == 0


def test_the_request_that_loads_tells_and_records_the_applied_shape(own_daemon):
    with autotune.Client(own_daemon.address) as client:
        events = events_of(client, ask(max_reply_tokens=2))
        started = next(event.started for event in events if event.HasField("started"))
        applied = client.list_running_models()[0].shape
    assert started.plan.shape == applied
    assert own_daemon.stop() == 0
    with closing(sqlite3.connect(own_daemon.home / "data" / "autotune.db")) as database:
        recorded = database.execute("select context_tokens, gpu_layers_count from requests").fetchall()
    assert recorded == [(applied.context_tokens, applied.gpu_layers_count)]
