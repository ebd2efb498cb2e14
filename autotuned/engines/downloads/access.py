"""HTTP to one registry: redirects, tokens, and what a refusal means.

``registry`` makes one in the worker. Invariants: a token goes to the host that asked for it and nowhere else;
nothing is asked without TLS but hosts of this machine and those that the settings name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import msgspec

from autotuned.engines.downloads.patience import Interrupted, wished_seconds
from autotuned.engines.downloads.protocol import DownloadFailure
from autotuned.engines.plain_hosts import may_be_plain

CONNECT_SECONDS = 10.0
MOST_REDIRECTS = 10
MOST_TEXT_BYTES = 1 << 20
GOOD_STATUSES = (200, 206, 416)
_BUSY = {408, 425, 429}
_FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s",]+))')
# As other clients of registries have it: this machine is never behind a proxy.
_DIRECT = ("all://localhost", "all://127.0.0.1", "all://[::1]")


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class NotThere(Exception):
    """The registry has nothing of this name."""


class Access:
    """A registry at ``base_url``. ``insecure_hosts`` may be asked without TLS."""

    def __init__(self, base_url: str, insecure_hosts: tuple[str, ...], timeout_seconds: float) -> None:
        self._base = _address(base_url.rstrip("/"))
        self._insecure_hosts = insecure_hosts
        self._token = ""
        require_safe(self._base, self._insecure_hosts)
        try:
            self._client = httpx.Client(
                timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
                headers={"User-Agent": "autotuned", "Accept-Encoding": "identity"},
                mounts=dict.fromkeys(_DIRECT),
            )
        except OSError as error:
            raise certificate_problem(error) from error

    @property
    def host(self) -> str:
        """Who is asked, with its port where that is not the usual one."""
        return self._base.netloc.decode()

    def text(self, path: str, accept: str) -> bytes:
        """A small answer whole. Raises as ``open`` does."""
        with self.open(path, {"Accept": accept}) as response:
            require_no_page(response, self.host)
            return _bounded(response, self.host, path)

    @contextmanager
    def open(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """An answer with a status of ``GOOD_STATUSES``, whose body is not read yet.

        Raises ``NotThere``, ``Interrupted``, or ``DownloadFailure`` for what trying again does not change.
        """
        try:
            response = self._asked(httpx.URL(f"{self._base}{path}"), headers)
            try:
                yield response
            finally:
                response.close()
        except httpx.TimeoutException as error:
            raise Interrupted(f"{self.host} is silent") from error
        except httpx.ConnectError as error:
            raise Interrupted(f"there is no connection to it ({_words(error)})") from error
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Interrupted(f"the connection to {self.host} broke ({_words(error)})") from error

    @contextmanager
    def blob(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """A file of a manifest. Raises ``Interrupted`` or ``DownloadFailure``."""
        try:
            with self.open(path, headers) as response:
                yield response
        except NotThere as error:
            raise nonsense(self.host, "it has not the files that it promises") from error

    def _asked(self, url: httpx.URL, headers: dict[str, str]) -> httpx.Response:
        has_authorized = False
        for _ in range(MOST_REDIRECTS):
            is_registry = _origin(url) == _origin(self._base)
            own = {"Authorization": f"Bearer {self._token}"} if is_registry and self._token else {}
            response = self._client.send(
                self._client.build_request("GET", url, headers={**headers, **own}), stream=True
            )
            if response.status_code in GOOD_STATUSES:
                return response
            with _closed(response):
                if response.status_code == httpx.codes.UNAUTHORIZED and is_registry and not has_authorized:
                    self._authorize(response.headers.get("WWW-Authenticate", ""))
                    has_authorized = True
                elif response.is_redirect and "Location" in response.headers:
                    url = self._joined(url, response.headers["Location"])
                else:
                    self._refuse(response, is_registry=is_registry)
        raise nonsense(self.host, f"it redirects more than {MOST_REDIRECTS} times")

    def _joined(self, url: httpx.URL, location: str) -> httpx.URL:
        try:
            joined = url.join(location)
        except httpx.InvalidURL as error:
            raise nonsense(self.host, "it sends on to what is no address") from error
        if not _is_safe(joined, self._insecure_hosts):
            # No word of insecure_hosts: it is most likely the page of a network that wants a login.
            raise nonsense(self.host, f"it sends on to {_shown(joined)}, which is not encrypted")
        return joined

    def _authorize(self, challenge: str) -> None:
        """Asks for a token as anybody; registries that give their models to all hand one out."""
        scheme, _, rest = challenge.partition(" ")
        fields = {key.lower(): quoted or bare for key, quoted, bare in _FIELD.findall(rest)}
        if scheme.lower() != "bearer" or "realm" not in fields:
            raise _denied(self.host)
        realm = self._joined(self._base, fields.pop("realm"))
        asked = {key: fields[key] for key in ("service", "scope") if key in fields}
        response = self._client.send(
            self._client.build_request("GET", realm.copy_merge_params(asked)), stream=True
        )
        with _closed(response):
            if response.status_code >= 500 or response.status_code in _BUSY:  # noqa: PLR2004 - HTTP's own
                self._refuse(response, is_registry=True)
            content = _bounded(response, self.host, "a token")
        try:
            token = msgspec.json.decode(content, type=_Token)
        except msgspec.MsgspecError:
            token = _Token()
        self._token = token.token or token.access_token
        if response.status_code != httpx.codes.OK or not re.fullmatch(r"[\x21-\x7e]+", self._token):
            self._token = ""
            raise _denied(self.host)

    def _refuse(self, response: httpx.Response, *, is_registry: bool) -> None:
        status = response.status_code
        if status == httpx.codes.NETWORK_AUTHENTICATION_REQUIRED:
            raise nonsense(self.host, f"status {status} came from the network in between")
        if status in _BUSY or status >= 500:  # noqa: PLR2004 - HTTP's own
            wish = wished_seconds(response.headers.get("Retry-After", ""))
            raise Interrupted(f"{response.url.host} is busy (status {status})", wish)
        if not is_registry:
            # The address that the registry gave out has run out: it gives another one.
            raise Interrupted(f"{response.url.host} refuses the file (status {status})")
        if status == httpx.codes.NOT_FOUND:
            raise NotThere
        if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise _denied(self.host)
        raise nonsense(self.host, f"it answered with status {status}")


def _address(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if not url.host or "%" in url.host:
        raise DownloadFailure(
            "FIELD_INVALID", f'"{text}" is no address of a registry; correct pull.registry_url or the name.'
        )
    return url


def _bounded(response: httpx.Response, host: str, what: str) -> bytes:
    """The body of a small answer."""
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > MOST_TEXT_BYTES:
            raise nonsense(host, f"it sent more than {MOST_TEXT_BYTES:,} bytes for {what}")
    return content


def require_safe(url: httpx.URL, insecure_hosts: tuple[str, ...]) -> None:
    """Raises where an address is not encrypted, but for this machine and hosts named in the settings."""
    if not _is_safe(url, insecure_hosts):
        raise DownloadFailure(
            "SOURCE_UNREACHABLE",
            f'"{_shown(url)}" is not asked, because it is not encrypted; use https, or add '
            f"{url.netloc.decode()} to pull.insecure_hosts.",
        )


def _is_safe(url: httpx.URL, insecure_hosts: tuple[str, ...]) -> bool:
    return url.scheme == "https" or (
        url.scheme == "http" and may_be_plain(url.netloc.decode(), insecure_hosts)
    )


def require_no_page(response: httpx.Response, host: str) -> None:
    """Raises where a page came instead of data, which is what networks that want a login do."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        raise nonsense(host, "a web page came where data was expected")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise nonsense(host, "it compressed what was asked for as it is")


def nonsense(host: str, clause: str) -> DownloadFailure:
    """For answers that no registry gives."""
    return DownloadFailure(
        "SOURCE_UNREACHABLE",
        f"{host} does not answer as it should: {clause}; look whether this network wants a login first.",
    )


def certificate_problem(error: OSError) -> DownloadFailure:
    """For an HTTP library that cannot read the certificates that it trusts."""
    return DownloadFailure(
        "SOURCE_UNREACHABLE",
        f"The trusted certificates cannot be read ({error.strerror}); correct SSL_CERT_FILE or SSL_CERT_DIR "
        "in the environment of the daemon and restart it.",
    )


def _denied(host: str) -> DownloadFailure:
    return DownloadFailure(
        "SOURCE_DENIED",
        f"{host} gives this model to some only, or has none of this name; check the name, or let a program "
        "with an account there download it.",
    )


@contextmanager
def _closed(response: httpx.Response) -> Iterator[None]:
    try:
        yield
    finally:
        response.close()


def _shown(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
