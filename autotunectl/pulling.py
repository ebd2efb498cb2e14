"""Downloads a model: asks where it would not fit, and lets Ctrl-C stop it.

``pull``, ``mlx pull`` and the chat's /pull use it. Invariant: while the call runs Ctrl-C ends the call and
raises nothing; what came by then stays with the daemon.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from autotune.errors import Internal, ModelTooLarge

from autotunectl import exits
from autotunectl.asking import agrees
from autotunectl.chat.turn import ctrl_c_calls
from autotunectl.output import one_line, wrapped
from autotunectl.pull_display import display_for
from autotunectl.pull_texts import pull_command, pulled_line

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import model_service_pb2

    from autotunectl.pull_display import PullDisplay
    from autotunectl.session import Session

FLAGS = {"engine": "--engine", "model": "NAME"}
STOPPED = "Stopped; what came is kept. Go on with:"
NOTHING_CAME = "Nothing was downloaded."


def pull_and_tell(session: Session, client: Client, model: str, engine: str, *, yes: bool) -> int:
    """Downloads ``model`` and says how to go on; returns the exit status. Raises AutotuneError.

    ``yes`` downloads what does not fit without asking.
    """
    display = display_for(session)
    try:
        pulled = pull(client, model, engine, display, allow_too_large=yes)
    except ModelTooLarge as error:
        if not session.can_ask:
            raise _with_advice(error) from None
        if not agrees_to_too_large(session, error, model):
            session.note(NOTHING_CAME)
            return exits.DONE
        yes = True
        pulled = pull(client, model, engine, display, allow_too_large=True)
    if pulled is None:
        session.note(f"{STOPPED} {pull_command(model, engine, yes=yes)}")
        return exits.INTERRUPTED
    if not session.json:
        session.write(f"{pulled_line(pulled)}\n")
    return exits.DONE


def pull(
    client: Client, model: str, engine: str, display: PullDisplay, *, allow_too_large: bool
) -> model_service_pb2.PulledModel | None:
    """Downloads and shows how it goes; None when Ctrl-C stopped it. Raises AutotuneError."""
    interrupted = False
    with closing(client.pull_model(model, engine, allow_too_large=allow_too_large)) as events:

        def stop() -> None:
            nonlocal interrupted
            interrupted = True
            events.close()

        try:
            with ctrl_c_calls(stop):
                for event in events:
                    display.show(event)
                    if event.HasField("pulled"):
                        return event.pulled
        finally:
            display.end()
    if interrupted:
        return None
    raise Internal("The daemon ended the download without a result; its log has more.")


def agrees_to_too_large(session: Session, error: ModelTooLarge, model: str) -> bool:
    """Asks whether a model that does not fit is wanted all the same. Raises Abort at Ctrl-C."""
    session.note(wrapped(error.message))
    return agrees(f"Download {one_line(model)} all the same?")


def _with_advice(error: ModelTooLarge) -> ModelTooLarge:
    return ModelTooLarge(f"{error.message} Add --yes to download it all the same.", metadata=error.metadata)
