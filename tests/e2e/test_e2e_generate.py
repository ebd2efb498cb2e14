"""Generation through the real daemon and the real engine, on the wire."""

from __future__ import annotations

import json

import autotune
import grpc
import pytest
from autotune.v1 import chat_pb2, inference_service_pb2, model_pb2, plan_pb2
from autotune.v1 import inference_service_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
WEATHER = chat_pb2.Tool(
    name="get_weather",
    description="Get the weather in a city",
    parameters_json='{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
)


def user(text):
    return chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)])


def ask(text=QUESTION, *, tools=(), temperature=0.0, **fields):
    return pb.GenerateRequest(
        chat=chat_pb2.ChatInput(messages=[user(text)], tools=tools),
        sampling=pb.Sampling(temperature=temperature),
        **fields,
    )


def events_of(client, request):
    return list(client.generate(request))


def text_of(events):
    return "".join(event.delta.text for event in events if event.WhichOneof("event") == "delta")


def test_an_answer_is_a_stream_of_queued_started_deltas_and_finished(client):
    events = events_of(client, ask())
    kinds = [event.WhichOneof("event") for event in events]
    order = [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]
    assert order in (["started", "delta", "finished"], ["queued", "started", "delta", "finished"])
    assert text_of(events) == ANSWER
    finished = events[-1].finished
    assert finished.finish_reason == pb.FINISH_REASON_STOP
    assert (finished.usage.prompt_tokens, finished.usage.reply_tokens) == (15, 8)
    assert finished.timings.time_to_first_token_duration.ToNanoseconds() > 0
    assert finished.timings.decode_tokens_per_second > 0


def test_started_tells_the_exact_counts_and_the_plan_with_its_reasons(client):
    started = next(event.started for event in events_of(client, ask()) if event.HasField("started"))
    assert started.prompt_tokens == 15
    assert started.plan.shape.context_tokens >= 15 + 1024
    assert started.plan.kv_cache_bytes == started.plan.shape.context_tokens * 1024
    assert all(reason.code and reason.text.endswith(".") for reason in started.plan.reasons)
    assert len(started.request_id) == 32


def test_a_prompt_that_was_seen_is_cached(client):
    events_of(client, ask("What is a KV cache?"))
    finished = events_of(client, ask("What is a KV cache?"))[-1].finished
    assert finished.usage.cached_tokens >= finished.usage.prompt_tokens - 1


def test_a_tool_is_called_and_its_result_is_used(client):
    first = events_of(client, ask("What is the weather in Oslo?", tools=[WEATHER]))
    fragments = [
        event.delta for event in first if event.HasField("delta") and event.delta.HasField("tool_call")
    ]
    call = fragments[0].tool_call
    arguments = "".join(fragment.tool_call.arguments_json_fragment for fragment in fragments)
    assert (call.name, json.loads(arguments)) == ("get_weather", {"city": "Oslo"})
    assert first[-1].finished.finish_reason == pb.FINISH_REASON_TOOL_CALLS
    messages = [
        user("What is the weather in Oslo?"),
        chat_pb2.Message(
            role=chat_pb2.ROLE_ASSISTANT,
            parts=[
                chat_pb2.Part(
                    tool_call=chat_pb2.ToolCall(id=call.id, name=call.name, arguments_json=arguments)
                )
            ],
        ),
        chat_pb2.Message(
            role=chat_pb2.ROLE_TOOL,
            parts=[
                chat_pb2.Part(
                    tool_result=chat_pb2.ToolResult(
                        tool_call_id=call.id, name=call.name, text='{"temperature": 21, "condition": "sunny"}'
                    )
                )
            ],
        ),
    ]
    second = events_of(
        client,
        pb.GenerateRequest(
            chat=chat_pb2.ChatInput(messages=messages, tools=[WEATHER]), sampling=pb.Sampling(temperature=0)
        ),
    )
    assert "21" in text_of(second)


def test_a_reply_limit_is_kept(client):
    finished = events_of(client, ask("Tell me a story.", max_reply_tokens=5))[-1].finished
    assert finished.finish_reason == pb.FINISH_REASON_LENGTH
    assert finished.usage.reply_tokens == 5


def test_tokens_are_counted_as_the_engine_counts(client):
    events_of(client, ask())
    counted = client.count_tokens(pb.CountTokensRequest(chat=chat_pb2.ChatInput(messages=[user(QUESTION)])))
    assert (counted.tokens, counted.accuracy) == (15, pb.CountTokensResponse.ACCURACY_EXACT)


def test_a_prompt_that_outgrows_the_loaded_context_causes_one_exact_growth(own_daemon):
    with autotune.Client(own_daemon.address) as client:
        events_of(client, ask())
        before = client.list_running_models()[0]
        words = "word " * 2000
        grown = events_of(client, ask(f"{words}{QUESTION}", max_reply_tokens=4))
        after = client.list_running_models()[0]
    started = next(event.started for event in grown if event.HasField("started"))
    assert started.plan.action == plan_pb2.PLAN_ACTION_GROW
    assert started.prompt_tokens > 2000
    assert before.shape.context_tokens < started.prompt_tokens + 4 <= after.shape.context_tokens
    assert before.incarnation_id != after.incarnation_id


def test_a_prompt_that_can_never_fit_is_refused_with_both_numbers(client):
    with pytest.raises(autotune.ContextTooLong) as caught:
        events_of(client, ask("word " * 9000))
    assert caught.value.metadata["contextTokens"] == "8192"
    assert int(caught.value.metadata["promptTokens"]) > 9000
    assert text_of(events_of(client, ask())) == ANSWER


def test_twenty_megabytes_are_refused_at_once(client):
    with pytest.raises(autotune.ContextTooLong) as caught:
        events_of(client, ask("word " * 4_000_000))
    assert "at least 156," in str(caught.value)
    assert text_of(events_of(client, ask())) == ANSWER


def test_a_wrong_name_gets_a_suggestion(client):
    with pytest.raises(autotune.ModelNotFound) as caught:
        events_of(client, ask(model="pocked"))
    assert caught.value.metadata["suggestion"] == "pocket"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (
            pb.GenerateRequest(
                chat=chat_pb2.ChatInput(
                    messages=[
                        chat_pb2.Message(
                            role=chat_pb2.ROLE_USER,
                            parts=[chat_pb2.Part(image=chat_pb2.Image(data=b"x", media_type="image/png"))],
                        )
                    ]
                )
            ),
            "images are not supported; send text only (engine llamacpp).",
        ),
        (
            pb.GenerateRequest(continuation=chat_pb2.Continuation(conversation_id="1")),
            "Stored conversations are not supported yet; send the whole conversation as chat.",
        ),
    ],
)
def test_what_is_not_there_yet_says_so(client, request_, sentence):
    with pytest.raises(autotune.Unsupported) as caught:
        events_of(client, request_)
    assert caught.value.message == sentence


def test_embeddings_are_unsupported_for_now(client):
    with pytest.raises(autotune.Unsupported, match='"pocket" is a chat model'):
        client.embed(pb.EmbedRequest(texts=["x"]))


def test_a_schema_that_the_engine_refuses_is_a_field_error(client):
    bad = pb.ResponseFormat(kind=pb.ResponseFormat.KIND_JSON_SCHEMA, schema_json='{"type":"frob"}')
    with pytest.raises(autotune.FieldInvalid):
        events_of(client, ask(response_format=bad))


def test_bytes_that_are_no_text_are_a_field_error_and_the_daemon_goes_on(daemon, client):
    broken = pb.GenerateRequest(model="x" * 4).SerializeToString().replace(b"xxxx", b"\xff\xfe\xff\xfe")
    with grpc.insecure_channel(daemon.address) as channel:
        call = channel.unary_stream("/autotune.v1.InferenceService/Generate")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(broken))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot be decoded" in caught.value.details()
    assert text_of(events_of(client, ask())) == ANSWER


def test_models_are_listed_with_their_facts(client):
    listed = client.list_models()
    pocket = next(model for model in listed.models if model.id == "pocket")
    assert listed.default_model == "pocket"
    assert (pocket.architecture, pocket.quantization, pocket.train_context_tokens) == ("llama", "Q8_0", 8192)
    assert pocket.parameters_count == 2_115_264


def test_running_models_tell_shape_memory_and_reasons(client):
    events_of(client, ask())
    running = client.list_running_models()[0]
    assert (running.id, running.state) == ("pocket", model_pb2.MODEL_STATE_READY)
    assert running.resident_memory_bytes > 10_000_000
    assert running.process_id > 0
    assert running.reasons


def test_health_and_reflection_answer(daemon):
    with grpc.insecure_channel(daemon.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "autotune.v1.InferenceService", "autotune.v1.DaemonService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = iter(
            [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol="autotune.v1.InferenceService"),
            ]
        )
        names, file = reflection.ServerReflectionInfo(asked)
        listed = {service.name for service in names.list_services_response.service}
        assert "autotune.v1.ModelService" in listed
        described = FileDescriptorProto.FromString(file.file_descriptor_response.file_descriptor_proto[0])
        assert described.name == inference_service_pb2.DESCRIPTOR.name


def test_snapshots_stream_with_sequence_numbers(client):
    watched = client.watch_snapshots(0.1)
    first, second = next(watched), next(watched)
    watched.close()
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.snapshot.memory_total_bytes > 0
    assert second.snapshot.snapshot_time.ToNanoseconds() > first.snapshot.snapshot_time.ToNanoseconds()


def test_every_finished_request_is_recorded(own_daemon):
    with autotune.Client(own_daemon.address) as client:
        events_of(client, ask())
        with pytest.raises(autotune.ContextTooLong):
            events_of(client, ask("word " * 9000))
    assert own_daemon.stop() == 0
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(own_daemon.home / "data" / "autotune.db")) as database:
        rows = database.execute(
            "select model, finish_reason, error_reason, prompt_tokens, reply_tokens, context_tokens from requests"
            " order by started_at"
        ).fetchall()
    assert rows[0][:3] == ("pocket", "stop", "")
    assert rows[0][3:5] == (15, 8)
    assert rows[0][5] >= 1536
    assert rows[1][1:3] == ("", "CONTEXT_TOO_LONG")
