"""What an Ollama name brings besides its weights, and that the engine says and does it as Ollama would."""

import json

import pytest

from autotuned.core.chat import ChatInput, GenerationRequest, Message, RawPrompt, Role, Sampling, TextPart
from autotuned.core.generation import FinishReason
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.model_defaults import NO_DEFAULTS, ModelDefaults
from autotuned.engines.stores.ollama import OllamaStore
from tests.engines.shapes import SHAPE
from tests.engines.store_files import PUBLIC, Ollama, content
from tests.suites.engine_case import answer, ask, text_of

KIND = "application/vnd.ollama.image."
PARAMETERS = {
    "temperature": 0.6,
    "top_p": 1,
    "top_k": 20,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "seed": 7,
    "stop": ["<|im_end|>", "User:"],
    "num_ctx": 4096,
    "num_predict": 128,
    "mirostat": 2,
}
SAMPLING = Sampling(
    temperature=0.6,
    top_p=1,
    top_k=20,
    min_p=0.05,
    repeat_penalty=1.1,
    presence_penalty=0.1,
    frequency_penalty=0.2,
    seed=7,
)
SYSTEM = "You are a pirate who never says more than two words."


def message(role, text):
    return Message(role, (TextPart(text),))


@pytest.fixture
def store(paths):
    return Ollama(paths.registry_store)


@pytest.fixture
def found(store):
    """``found(system=..., params=..., messages=...)``: what the store makes of such a model, and why not."""

    def run(**layers):
        named = [
            store.layer(text if isinstance(text, bytes) else json.dumps(text).encode(), KIND + kind)
            for kind, text in layers.items()
        ]
        store.model(f"{PUBLIC}/some:1b", content(), *named)
        notes = []
        files = list(OllamaStore(store.folder).files(lambda _path, reason: notes.append(reason)))
        return (files[0].defaults if files else None), notes

    return run


def test_a_model_without_them_brings_none(found):
    assert found() == (NO_DEFAULTS, [])


def test_system_prompt_messages_and_parameters_are_read(found):
    defaults, _ = found(
        system=SYSTEM.encode(),
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}],
        params=PARAMETERS,
    )
    assert defaults == ModelDefaults(
        system=SYSTEM,
        messages=(message(Role.USER, "Hi"), message(Role.ASSISTANT, "Ahoy")),
        sampling=SAMPLING,
        stop_sequences=("<|im_end|>", "User:"),
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": "warm", "top_k": True, "seed": None, "stop": 7, "top_p": [1]},
        {"top_k": -1, "seed": -1, "stop": [""], "temperature": 1e300},
        {},
    ],
)
def test_a_parameter_that_makes_no_sense_is_as_none(found, parameters):
    assert found(params=parameters) == (NO_DEFAULTS, [])


def test_one_stop_sequence_may_stand_alone(found):
    defaults, _ = found(params={"stop": "</s>"})
    assert defaults.stop_sequences == ("</s>",)


@pytest.mark.parametrize(
    "layers",
    [
        {"params": b"[1]"},
        {"params": b"{"},
        {"params": b"[" * 100_000},
        {"messages": [{"role": "pirate", "content": ""}]},
        {"system": b"\xff"},
    ],
)
def test_a_model_with_damaged_ones_is_left_out(found, layers):
    assert found(**layers) == (None, ["its system prompt, messages or parameters are damaged"])


def test_a_model_with_missing_ones_is_left_out_until_they_are_there(store, found):
    layer = store.layer(SYSTEM.encode(), f"{KIND}system")
    store.path(SYSTEM.encode()).unlink()
    store.manifest(f"{PUBLIC}/some:1b", {"layers": [store.layer(content()), layer]})
    reader = OllamaStore(store.folder)
    assert list(reader.files(lambda *_: None)) == []
    store.blob(SYSTEM.encode())
    assert [file.defaults.system for file in reader.files(lambda *_: None)] == [SYSTEM]


def test_what_a_request_says_itself_stands():
    defaults = ModelDefaults(sampling=SAMPLING, stop_sequences=("x",))
    request = GenerationRequest(
        model="some",
        input=RawPrompt("Once"),
        sampling=Sampling(temperature=0.0, top_k=1),
        stop_sequences=("y",),
    )
    filled = defaults.filled(request)
    assert (filled.sampling.temperature, filled.sampling.top_k, filled.sampling.top_p) == (0.0, 1, 1)
    assert filled.stop_sequences == ("y",)
    assert filled.input == RawPrompt("Once")
    assert NO_DEFAULTS.filled(request) == request


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ([message(Role.USER, "Hello")], ["system: S", "user: Hi", "user: Hello"]),
        (
            [message(Role.SYSTEM, "Mine"), message(Role.USER, "Hello")],
            ["user: Hi", "system: Mine", "user: Hello"],
        ),
        ([], ["system: S", "user: Hi"]),
    ],
)
def test_conversations_begin_as_ollamas_do(asked, sent):
    defaults = ModelDefaults(system="S", messages=(message(Role.USER, "Hi"),))
    begun = defaults.begun(ChatInput(tuple(asked)))
    assert [f"{each.role.value}: {each.parts[0].text}" for each in begun.messages] == sent


async def test_the_engine_says_and_does_what_the_name_brings(store, make_engine, pocket):
    data = POCKET.read_bytes()
    store.model(f"{PUBLIC}/plain:1m", data)
    system = store.layer(SYSTEM.encode(), f"{KIND}system")
    parameters = store.layer(json.dumps({"stop": ["Paris"]}).encode(), f"{KIND}params")
    store.model(f"{PUBLIC}/pirate:1m", data, system, parameters)
    engine = make_engine()
    entries = {entry.id: entry for entry in await engine.models()}
    plain = await engine.load(entries["plain:1m"], SHAPE, lambda _progress: None)
    pirate = await engine.load(entries["pirate:1m"], SHAPE, lambda _progress: None)
    question = ask("What is the capital of France?")
    told = ChatInput((message(Role.SYSTEM, SYSTEM), *question.input.messages))
    assert await pirate.count_tokens(question.input) == await plain.count_tokens(told)
    assert await pirate.count_tokens(told) == await plain.count_tokens(told)
    assert await plain.count_tokens(question.input) < await plain.count_tokens(told)
    events = await answer(pirate, question)
    assert events[0].prompt_tokens == await plain.count_tokens(told)
    assert "Paris" in text_of(await answer(plain, question))
    assert "Paris" not in text_of(events)
    assert events[-1].finish_reason is FinishReason.STOP
