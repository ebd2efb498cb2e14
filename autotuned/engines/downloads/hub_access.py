"""HTTP to one repository of a hub: its files, with the token of the user.

``huggingface`` makes one in the worker. The library's own download begins each try at the first byte, so
bytes come by ``files.fetch_file``, as those of registries do, and this opens what it reads.
Invariants: a token goes to the hub and not to the servers behind it; nothing is asked without TLS but hosts
of this machine and those that the settings name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from huggingface_hub import constants, get_token, hf_hub_url

from autotuned.engines.downloads.access import GOOD_STATUSES, require_safe
from autotuned.engines.downloads.hub_choice import HubFile
from autotuned.engines.downloads.hub_refusals import connection_problem, refusal
from autotuned.engines.downloads.patience import Interrupted
from autotuned.engines.downloads.protocol import DownloadFailure

# The servers behind the hub give at most 50 GB at once; of larger files the rest is asked for afterwards.
MOST_AT_ONCE_BYTES = 48 << 30


class Hub:
    """A repository at one commit. ``endpoint`` is the address of the hub."""

    def __init__(
        self,
        endpoint: str,
        name: str,
        commit: str,
        *,
        timeout_seconds: float,
        insecure_hosts: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._commit = commit
        # As the library has it: a user may want tokens to be sent on demand only, which this is not.
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        self._client = httpx.Client(
            timeout=timeout_seconds,
            follow_redirects=True,
            headers={
                "User-Agent": "autotuned",
                # Pieces of what is compressed could not be put together.
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            event_hooks={"request": [lambda request: require_safe(request.url, insecure_hosts)]},
        )

    @property
    def host(self) -> str:
        """Who is asked, with its port where that is not the usual one."""
        return httpx.URL(self._endpoint).netloc.decode()

    @contextmanager
    def open(self, file: HubFile, offset: int) -> Iterator[httpx.Response]:
        """The answer that has the file from an offset, its body not read yet.

        Raises ``Interrupted``, or ``DownloadFailure`` for what trying again does not change.
        """
        headers = {}
        if offset or file.size_bytes > MOST_AT_ONCE_BYTES:
            last = min(offset + MOST_AT_ONCE_BYTES, file.size_bytes) - 1
            headers["Range"] = f"bytes={offset}-{last}"
        try:
            with self._client.stream("GET", self._url(file), headers=headers) as response:
                self._require_good(response)
                yield response
        except httpx.HTTPError as error:
            raise Interrupted(connection_problem(error, self.host)) from error

    def require_given(self, file: HubFile) -> None:
        """Asks whether the file is given to this user. Raises as ``open`` does."""
        try:
            self._require_good(self._client.head(self._url(file), follow_redirects=False))
        except httpx.HTTPError as error:
            raise Interrupted(connection_problem(error, self.host)) from error

    def _url(self, file: HubFile) -> str:
        return hf_hub_url(self.name, file.path, revision=self._commit, endpoint=self._endpoint)

    def _require_good(self, response: httpx.Response) -> None:
        if response.status_code in GOOD_STATUSES or response.is_redirect:
            return
        problem = refusal(response.status_code, response.headers, self.name, self._endpoint)
        host = response.url.netloc.decode()
        if host != self.host and isinstance(problem, DownloadFailure):
            # An address that the hub signs is good for some time only: it gives another one.
            raise Interrupted(f"{host} refuses the file (status {response.status_code})")
        raise problem
