"""The MLX engine: how fast it computes on this CPU, and what its KV states spare a conversation.

MLX is made for the GPUs of Apple's machines. On a CPU its rates are low, and llama.cpp's stand beside them
so that nobody takes them for more. Both run the pocket model: llama.cpp in Q8_0, MLX in F16. A
conversation is measured with its state in memory, without any, and after a restart of the daemon.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import autotune
from autotune.requests import load_model_request

from tests.bench import processes
from tests.bench.house import address_in
from tests.bench.report import Row, median
from tests.engine_house import MODELS
from tests.fakes.openai_servers import MLX_LM_IS_INSTALLED, POCKET_FOLDER

ROUNDS = 5
RESTARTS = 3
SYSTEM_LINES = 60
"""Each has about 7 tokens. With longer ones the pocket model says nothing any more."""
DECODE_TOKENS = 64
REPLY_TOKENS = 4
CONTEXT_TOKENS = 4096
LINE = "You are a helpful assistant. "
QUESTIONS = (
    "What is the capital of France?",
    "What is a KV cache?",
    "Tell me a story.",
    "My name is Ada. What is my name?",
    "What is two plus two?",
    "What is the capital of Italy?",
)
"""The turns of a conversation."""
STORY = QUESTIONS[2]
WITHOUT_PREFIXES = ("--set", "prefixes.disk_mib=0")
RATED = {"MLX on the CPU": MODELS["mlx"], "llama.cpp": MODELS["llamacpp"]}

Conversation = list[dict[str, str]]


def measure() -> list[Row]:
    """Nothing where mlx-lm is not installed."""
    if not MLX_LM_IS_INSTALLED:
        return []
    with processes.home() as folder:
        shutil.copytree(POCKET_FOLDER, folder / "data" / "models" / MODELS["mlx"])
        with _client_of_daemon(folder, WITHOUT_PREFIXES) as client:
            rows = [*_rates(client), *_sixth_turn(client)]
        return [*rows, *_restarts(folder)]


def _rates(client: autotune.Client) -> list[Row]:
    """Both engines compute the same prompts, of which nothing is cached, in turns."""
    prefill: dict[str, list[float]] = {title: [] for title in RATED}
    decode: dict[str, list[float]] = {title: [] for title in RATED}
    for number in range(ROUNDS + 1):
        for title, model in RATED.items():
            reply = _ask(client, [_system(number), _user(STORY)], model, DECODE_TOKENS)
            assert reply.usage.cached_tokens < reply.usage.prompt_tokens // 2
            if number:  # the first round loads
                prefill[title].append(reply.timings.prefill_tokens_per_second)
                decode[title].append(reply.timings.decode_tokens_per_second)
    return [
        *(Row(f"prefill: {title}", median(rates), "tokens/s") for title, rates in prefill.items()),
        *(Row(f"decode: {title}", median(rates), "tokens/s") for title, rates in decode.items()),
    ]


def _sixth_turn(client: autotune.Client) -> list[Row]:
    """The last turn of a conversation: after the others, and as the first that the engine sees of it."""
    cached: list[float] = []
    computed: list[float] = []
    for number in range(ROUNDS):
        messages: Conversation = [_system(1000 + number)]
        for question in QUESTIONS:
            messages.append(_user(question))
            reply = _ask(client, messages)
            messages.append({"role": "assistant", "content": reply.text})
        cached.append(_first_token_seconds(reply))
        unseen = [_system(2000 + number), *messages[1:-1]]
        computed.append(_first_token_seconds(_ask(client, unseen)))
    turn = f"first token of turn {len(QUESTIONS)}"
    return [
        Row(f"{turn}: state in memory", 1000 * median(cached), "ms"),
        Row(f"{turn}: nothing cached", 1000 * median(computed), "ms"),
        Row(f"{turn}: times as fast", median(computed) / median(cached), "x"),
    ]


def _restarts(folder: Path) -> list[Row]:
    """A conversation goes on after a restart, from its saved state and without one, in turns."""
    restored: list[autotune.Reply] = []
    computed: list[autotune.Reply] = []
    for number in range(RESTARTS):
        restored.append(_after_restart(folder, 3000 + number, ()))
        computed.append(_after_restart(folder, 3000 + number, WITHOUT_PREFIXES))
    seconds = [median([_first_token_seconds(reply) for reply in replies]) for replies in (restored, computed)]
    return [
        Row("prompt of the conversation", median([r.usage.prompt_tokens for r in restored]), "tokens"),
        Row(
            "of it restored from disk after a restart",
            median([r.usage.cached_tokens for r in restored]),
            "tokens",
        ),
        Row("first token after a restart: restored", 1000 * seconds[0], "ms"),
        Row("first token after a restart: recomputed", 1000 * seconds[1], "ms"),
        Row("first token after a restart: times as fast", seconds[1] / seconds[0], "x"),
    ]


def _after_restart(folder: Path, number: int, arguments: Sequence[str]) -> autotune.Reply:
    messages: Conversation = [_system(number), _user(QUESTIONS[0])]
    with _client_of_daemon(folder, arguments) as client:
        client.delete_prefixes()
        messages += [{"role": "assistant", "content": _ask(client, messages).text}, _user(QUESTIONS[1])]
    with _client_of_daemon(folder, arguments) as client:
        for _ in client.load_model(load_model_request(MODELS["mlx"], CONTEXT_TOKENS)):
            pass
        return _ask(client, messages)


def _ask(
    client: autotune.Client,
    messages: Conversation,
    model: str = MODELS["mlx"],
    reply_tokens: int = REPLY_TOKENS,
) -> autotune.Reply:
    return client.chat(
        list(messages),
        model,
        temperature=0,
        max_reply_tokens=reply_tokens,
        context_tokens=CONTEXT_TOKENS,
    )


def _system(number: int) -> dict[str, str]:
    """A long prompt that begins like no other number's."""
    return {"role": "system", "content": f"{number} " + LINE * SYSTEM_LINES}


def _user(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def _first_token_seconds(reply: autotune.Reply) -> float:
    """Without a load."""
    timings = reply.timings
    to_first_token = timings.time_to_first_token_duration.ToTimedelta()
    return (to_first_token - timings.load_duration.ToTimedelta()).total_seconds()


@contextmanager
def _client_of_daemon(folder: Path, arguments: Sequence[str]) -> Iterator[autotune.Client]:
    with (
        processes.daemon(folder, *arguments),
        autotune.Client(address_in(folder), client_name="bench") as client,
    ):
        yield client
