"""What ``make demo`` shows: one question to the pocket model, its answer, and the numbers behind it.

Uses the client library as any program would. Invariant: a daemon that this script started is
stopped by it, one that ran before goes on; the exit status is 0 only if an answer came.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

import autotune
import psutil
from autotune.chat import Reply, ReplyBuilder
from autotune.errors import AutotuneError
from autotune.version import version_mismatch

from autotunectl.output import format_bytes, format_count, format_fields, format_seconds, printable

MODEL = "pocket"
QUESTION = "What is the capital of France?"
STOP_SECONDS = 40.0


def main() -> int:
    """Runs the demo; returns its exit status."""
    try:
        with daemon() as client:
            print(f"You: {QUESTION}")
            reply = ask(client)
    except AutotuneError as error:
        print(f"The demo failed: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: Python's last flush goes nowhere
        return 1
    if not reply.text:
        print(f"The demo failed: the model {reply.model} ended without a word.", file=sys.stderr)
        return 1
    print("Go on with:")
    print("  .venv/bin/autotunectl chat     talk to it")
    print("  .venv/bin/autotunectl serve    serve the OpenAI API for other programs")
    return 0


@contextmanager
def daemon() -> Iterator[autotune.Client]:
    """A client of the running daemon, or of one that lives until the end of the demo."""
    started = autotune.ensure_daemon()
    try:
        with autotune.Client(client_name="demo") as client:
            info = client.info()
            print(f"{'Started' if started else 'Found'} autotuned {info.version}, process {info.process_id}.")
            if warning := version_mismatch(info.version, "the demo"):
                print(warning.message)
            yield client
    finally:
        if started:
            stop()


def ask(client: autotune.Client) -> Reply:
    """Streams the answer to the terminal, then shows its numbers."""
    builder = ReplyBuilder()
    request = autotune.chat_request(QUESTION, model=MODEL, temperature=0.0)
    print(f"{MODEL}: ", end="", flush=True)
    try:
        with closing(client.generate(request)) as events:
            for event in events:
                print(printable(builder.add(event)), end="", flush=True)
    finally:
        print("\n")
    reply = builder.reply()
    print(numbers(reply))
    return reply


def numbers(reply: Reply) -> str:
    """What the answer cost, and what was planned for it and why."""
    usage, timings, plan = reply.usage, reply.timings, reply.plan
    first = format_seconds(timings.time_to_first_token_duration.ToNanoseconds() / 1e9)
    if load_nanoseconds := timings.load_duration.ToNanoseconds():
        first += f" (loading the model took {format_seconds(load_nanoseconds / 1e9)} of it)"
    kv_cache = format_bytes(plan.kv_cache_bytes)
    return format_fields(
        (
            ("Time to first token", first),
            ("Speed", f"{timings.decode_tokens_per_second:,.0f} tokens/s"),
            ("Prompt", f"{usage.prompt_tokens:,} tokens, {usage.cached_tokens:,} of them cached"),
            ("Answer", f"{usage.reply_tokens:,} tokens"),
            ("Context", f"{format_count(plan.shape.context_tokens)} tokens, {kv_cache} of KV cache"),
            *(("" if index else "Why", reason.text) for index, reason in enumerate(plan.reasons)),
        )
    )


def stop() -> None:
    """Stops the daemon with the command that a user has, and waits until its process has ended."""
    daemons = psutil.Process().children()
    command = [sys.executable, "-m", "autotunectl", "stop"]
    stopped = subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS, check=False)
    if psutil.wait_procs(daemons, STOP_SECONDS)[1]:
        print(f"The daemon does not stop: {stopped.stderr.strip()}", file=sys.stderr)
    else:
        print("Stopped the daemon again; the next command starts one.\n")


if __name__ == "__main__":
    sys.exit(main())
