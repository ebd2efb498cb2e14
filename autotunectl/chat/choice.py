"""Which model a conversation goes on with, and which engine if the person chose one.

``options`` asks when a conversation begins, ``repl`` at ``/model``. Invariant: an engine that the name of
the model chose is not lost when the name becomes the model's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.client import Client
    from autotune.v1 import model_pb2


def choose(client: Client, name: str, engine: str = "") -> tuple[str, str]:
    """Id and engine for a name that may have its engine before it; engine "" leaves the choice.

    With an engine it is the id that the model has there.

    ``name`` "" is the default model. Raises AutotuneError.
    """
    model = client.get_model(name, engine)
    if not name and len(model.places) > 1:
        name = client.list_models().default_model  # perhaps it has its engine before it
    engine = engine or _engine_in(name, model)
    own_ids = [place.id for place in model.places if place.engine == engine]
    return (own_ids or [model.id])[0], engine


def _engine_in(name: str, model: model_pb2.Model) -> str:
    is_qualified = name != model.id and name.startswith(f"{model.engine}/")
    return model.engine if is_qualified else ""
