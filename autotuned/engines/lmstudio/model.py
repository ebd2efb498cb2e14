"""One loaded model: an instance in LM Studio, and the requests that run on it.

``engine`` makes it, ``services`` use it through the port ``LoadedModel``.
Invariant: closing ``generate`` closes its connection, which is what stops LM Studio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt
from autotuned.core.errors import EngineUnreachable, Unsupported
from autotuned.core.generation import EngineEvent, EngineFinished, PrefillProgress
from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import WrittenPrefix
from autotuned.engines.chat_events import ChatReader
from autotuned.engines.chat_json import messages_json
from autotuned.engines.lmstudio.body import Addressee, Call, generation_call
from autotuned.engines.lmstudio.events import LmstudioReader, TextReader
from autotuned.engines.lmstudio.instances import Instances, Use
from autotuned.engines.lmstudio.requests import InstanceRequests
from autotuned.engines.lmstudio.rest import Rest


class LmstudioModel:
    """A model in LM Studio, which may serve others as well."""

    def __init__(
        self,
        *,
        incarnation_id: str,
        shape: LoadShape,
        footprint: Footprint,
        addressee: Addressee,
        use: Use,
        instances: Instances,
        rest: Rest,
        requests: InstanceRequests,
    ) -> None:
        self._incarnation_id = incarnation_id
        self._shape = shape
        self._footprint = footprint
        self._addressee = addressee
        self._use = use
        self._instances = instances
        self._rest = rest
        self._requests = requests

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""
        return self._incarnation_id

    @property
    def shape(self) -> LoadShape:
        """What LM Studio told of the instance, and what it does not tell as ``assumed``."""
        return self._shape

    @property
    def footprint(self) -> Footprint:
        """The size of the weights: LM Studio tells no other bytes."""
        return self._footprint

    @property
    def process_id(self) -> int:
        """Not told."""
        return 0

    @property
    def is_gone(self) -> bool:
        """Whether the instance is there no more, as far as a look or a request has shown."""
        return self._use.is_over

    async def generate(
        self,
        request: GenerationRequest,
        conversation: str,  # noqa: ARG002 - LM Studio finds what it has cached by itself
    ) -> AsyncGenerator[EngineEvent, None]:
        """See ``LoadedModel.generate``. Counts come with the end."""
        call = generation_call(request, self._addressee)
        async with aclosing(self._stream(request, call)) as events:
            async for event in events:
                yield event

    async def prefill(
        self,
        request: GenerationRequest,
        conversation: str,  # noqa: ARG002 - LM Studio finds what it has cached by itself
    ) -> AsyncGenerator[PrefillProgress, None]:
        """See ``LoadedModel.prefill``. One token is drawn and dropped; the counts come at the end."""
        call = generation_call(replace(request, max_reply_tokens=1), self._addressee)
        async with aclosing(self._stream(request, call)) as events:
            async for event in events:
                if isinstance(event, EngineFinished):
                    prompt_tokens = event.usage.prompt_tokens
                    yield PrefillProgress(prompt_tokens, 0, prompt_tokens)

    def holds(self, conversation: str) -> bool:  # noqa: ARG002 - see below
        """Never: where a state lies is LM Studio's own business."""
        return False

    async def save_prefix(
        self,
        conversation: str,  # noqa: ARG002 - refused
        file_name: str,  # noqa: ARG002 - refused
    ) -> WrittenPrefix:
        """Refused."""
        raise Unsupported("LM Studio does not hand out its KV cache; use another engine.")

    async def restore_prefix(
        self,
        conversation: str,  # noqa: ARG002 - refused
        file_name: str,  # noqa: ARG002 - refused
    ) -> int:
        """Refused."""
        raise Unsupported("LM Studio does not take a KV cache; use another engine.")

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """Refused: no route of LM Studio counts. Raises ``EngineUnreachable`` where it is gone."""
        if isinstance(chat, ChatInput):
            messages_json(chat, images=self._addressee.sees)
        if self._use.is_over:
            raise EngineUnreachable(f"The model is gone from LM Studio: {self._use.cause}; load it again.")
        raise Unsupported("LM Studio counts no tokens beforehand; send the request and read its usage.")

    async def unload(self) -> None:
        """Unloads the instance, whoever loaded it, when nothing else here uses it. Safe to call twice."""
        if not self._use.is_over:
            await self._instances.release(self._rest, self._use)

    async def release(self) -> None:
        """Ends the use; an instance that others loaded stays."""
        await self._instances.let_go(self._rest, self._use)

    async def wait_gone(self) -> str:
        """Returns why the instance is gone, once that is known."""
        return await self._use.wait()

    async def _stream(self, request: GenerationRequest, call: Call) -> AsyncGenerator[EngineEvent, None]:
        is_raw = isinstance(request.input, RawPrompt)
        reader = LmstudioReader(
            TextReader() if is_raw else ChatReader(None, awaits_done=True),
            context_tokens=self._shape.context_tokens,
            tool_names=()
            if isinstance(request.input, RawPrompt)
            else (tool.name for tool in request.input.tools),
        )
        async with aclosing(self._requests.stream(call, reader)) as events:
            async for event in events:
                yield event
