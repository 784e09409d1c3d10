"""Calls another model server over HTTP with JSON, retries calls, and turns every failure into a FedbbptError.

Redirects are not followed, TLS certificates are verified, and the size of an answer is limited. The API key is sent in
one header and never appears in a text. Errors, which are sent on to callers, do not contain the server's address.
"""

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies

import httpx2

from fedbbpt.errors import (
    BudgetSpent,
    FedbbptError,
    InsecureAddress,
    InvalidInput,
    InvalidRequest,
    PromptTooLong,
    PtmUnavailable,
    RateLimited,
    Unauthenticated,
    WrongService,
)
from fedbbpt.limits import MAX_ANSWER_BYTES
from fedbbpt.wire import addresses
from fedbbpt.wire.proxies import resolves_to_this_machine

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
"""Bounds of the pause before a retry. If a server's Retry-After asks for more than the longest, the call fails."""
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 120.0
MAX_REASON_CHARACTERS = 200
"""Characters of a server's reason for a refusal that an error quotes."""

_RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_LONG = ("context_length_exceeded", "exceed_context_size", "maximum context length", "max_model_len")
"""Phrases in refusals of a prompt that is too long for the model, by OpenAI, llama.cpp, SGLang and vLLM."""
_FIX = "the base URL of a server that speaks OpenAI's protocol, which usually ends in /v1"


class _Retryable(Exception):
    """A call that can be retried, after `after_seconds` if the server stated a time."""

    def __init__(self, problem: FedbbptError, after_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.after_seconds = problem, after_seconds


class Server:
    """A server with a base URL such as http://127.0.0.1:8000/v1. Thread-safe."""

    def __init__(
        self, url: str, key: str = "", *, connections: int = 8, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Opens no connection yet.

        Args:
            url: The base URL.
            key: The API key; empty if the server needs none.
            connections: Most calls at a time.
            pause: Waits for a number of seconds before a retry.

        Raises:
            InvalidInput: The URL or the key has no valid form.
            InsecureAddress: The key would be sent unencrypted.
        """
        found = _parse(url)
        local = addresses.is_loopback(found.host)
        self.url = str(found.copy_with(path=found.path.rstrip("/")))
        self.host = found.host
        self.root = self.url.removesuffix("/v1")
        """The URL without /v1, for calls that are not part of OpenAI's protocol."""
        if found.scheme == "http" and not local:
            if key:
                raise InsecureAddress("the API key would be sent in clear text", where=self.url, fix="https")
            log.warning("INSECURE: calls to %s are not encrypted, so others on the network can read them", self.url)
        if not key.isascii() or not key.isprintable():
            raise InvalidInput(
                "the API key has characters that no key has", where="the API key", fix="the key alone, on one line"
            )
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._key, self._pause = key, pause
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            trust_env=not (local or _is_own_name(found.host)),  # no proxy is used for this machine
        )

    def close(self) -> None:
        """Closes all connections."""
        self._client.close()

    def get(self, url: str) -> Mapping[str, Any]:
        """Sends a GET request; otherwise as `post`."""
        return self._call("GET", url, None)

    def post(self, url: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Sends a POST request and returns the JSON object of the answer.

        Raises:
            PtmUnavailable: The server did not answer, or failed, also after retries.
            RateLimited: The server is busy, also after retries.
            BudgetSpent: The account with the model's provider is spent.
            Unauthenticated: The server does not accept the key.
            PromptTooLong: The prompt is too long for the model.
            InvalidRequest: The server refuses the body.
            WrongService: The server does not speak OpenAI's protocol.
        """
        return self._call("POST", url, json.dumps(body).encode())

    def _call(self, method: str, url: str, body: bytes | None) -> Mapping[str, Any]:
        """Retries a call, which is safe since calls have no effect on the server's state."""
        longest_pause = FIRST_PAUSE_SECONDS
        for attempt in range(ATTEMPTS):
            try:
                return self._call_once(method, url, body)
            except _Retryable as failed:
                problem, after = failed.problem, failed.after_seconds
            if attempt == ATTEMPTS - 1 or (after or 0.0) > LONGEST_PAUSE_SECONDS:
                break
            log.info("%s; trying again", problem)
            self._pause(random.uniform(0, longest_pause) if after is None else after)
            longest_pause = min(2 * longest_pause, LONGEST_PAUSE_SECONDS)
        raise problem

    def _call_once(self, method: str, url: str, body: bytes | None) -> Mapping[str, Any]:
        where = f"the model's server, {url.removeprefix(self.root)}"
        try:
            with self._client.stream(method, url, content=body) as response:
                text = _read(response, where)
        except httpx2.ReadTimeout:
            # No retry: the answer may have been computed, and charged, already.
            raise PtmUnavailable(f"no answer within {ANSWER_SECONDS:.0f} seconds", where=where) from None
        except httpx2.TransportError as error:
            raise _Retryable(PtmUnavailable(str(error) or type(error).__name__, where=where)) from None
        if response.status_code != 200:
            raise self._problem(response, self._reason(text), where)
        answer = _object(text)
        if answer is None:
            raise WrongService("an answer that is not a JSON object", where=where, fix=_FIX)
        return answer

    def _problem(self, response: httpx2.Response, reason: str, where: str) -> Exception:
        status = response.status_code
        if status == 429 and "insufficient_quota" in reason:
            return BudgetSpent("the budget of the service's account with the model's provider is spent", where=where)
        if status in _RETRYABLE_STATUS:
            kind = RateLimited if status == 429 else PtmUnavailable
            return _Retryable(kind(f"HTTP {status} {reason}".strip(), where=where), _retry_after(response))
        if status in (401, 403):
            # The reason is left out, since it quotes the key.
            return Unauthenticated(f"HTTP {status}", where=where, fix="a key that the model's server accepts")
        if status in (400, 413, 422):
            if any(sign in reason for sign in _TOO_LONG):
                return PromptTooLong(reason, where=where, fix="shorter prompts or examples")
            return InvalidRequest(f"HTTP {status} {reason}".strip(), where=where)
        if response.is_redirect:
            return WrongService(
                "the server redirects to another address", where=where, fix="the address that it redirects to"
            )
        return WrongService(f"HTTP {status} {reason}".strip(), where=where, fix=_FIX)

    def _reason(self, text: bytes) -> str:
        """Returns the reason of a refusal from an answer, in any of the forms that servers use, without the key."""
        reason: Any = _object(text) or {}
        reason = reason.get("error") or reason.get("message") or reason.get("detail") or ""
        if isinstance(reason, dict):
            reason = " ".join(str(reason[part]) for part in ("type", "code", "message") if reason.get(part))
        plain = " ".join(str(reason).split())
        return (plain.replace(self._key, "***") if self._key else plain)[:MAX_REASON_CHARACTERS]


def _parse(url: str) -> httpx2.URL:
    """Parses a URL. Errors do not quote it, since a user may have written a key into it."""
    where, fix = "the URL of the model's server", "for example http://127.0.0.1:8000/v1, and the key elsewhere"
    try:
        found = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise InvalidInput("not a URL", where=where, fix=fix) from None
    if found.scheme not in ("http", "https") or not found.host:
        raise InvalidInput("the URL does not begin with http:// or https:// and a host", where=where, fix=fix)
    if found.userinfo or found.query or found.fragment:
        raise InvalidInput("the URL has a name or password, a query or a fragment", where=where, fix=fix)
    return found


def _is_own_name(host: str) -> bool:
    """Tells whether a name leads to this machine; it is looked up only if the environment names proxies."""
    return bool(getproxies()) and resolves_to_this_machine(addresses.Server(host, 80))


def _read(response: httpx2.Response, where: str) -> bytes:
    read = bytearray()
    for part in response.iter_raw():
        read += part
        if len(read) > MAX_ANSWER_BYTES:
            raise WrongService(f"an answer of more than {MAX_ANSWER_BYTES} bytes", where=where)
    return bytes(read)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _retry_after(response: httpx2.Response) -> float | None:
    """Returns the seconds that a Retry-After header states, as a number or as a date; None without a valid one."""
    header = response.headers.get("Retry-After", "")
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
