"""HTTP to somebody else's model server: JSON out and in, calls made again, and every failure an error of ours.

Nothing is followed to another address, TLS certificates are verified, and an answer is read up to a bound. The key is
in one header and in no text, and errors, which travel to callers, do not say where the server is.
"""

import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

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
from fedbbpt.wire.addresses import is_loopback

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
"""The longest is also what a server's Retry-After may ask for; who asks for more is not waited for."""
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 120.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_REASON_CHARACTERS = 200

_RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_TOO_LONG = ("context_length_exceeded", "exceed_context_size", "maximum context length", "max_model_len")
"""In what servers say of a prompt that is longer than their model: OpenAI, llama.cpp, SGLang, vLLM."""
_FIX = "a server of OpenAI's protocol, and its base URL, which mostly ends in /v1"


class _Retryable(Exception):
    """A call that may be made again, after so many seconds if the server said when."""

    def __init__(self, problem: FedbbptError, after_seconds: float | None = None) -> None:
        super().__init__(problem)
        self.problem, self.after_seconds = problem, after_seconds


class Server:
    """A server by its base URL, such as http://127.0.0.1:8000/v1. For several threads at once."""

    def __init__(
        self, url: str, key: str = "", *, connections: int = 8, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Raises InvalidInput for what is no such URL, InsecureAddress where the key would go in clear."""
        found = _parse(url)
        local = is_loopback(found.host)
        self.url = str(found.copy_with(path=found.path.rstrip("/")))
        self.root = self.url.removesuffix("/v1")
        """Where what is not of OpenAI's protocol is found."""
        if found.scheme == "http" and not local:
            if key:
                raise InsecureAddress("the API key would go in clear", where=self.url, fix="https")
            log.warning("INSECURE: what goes to %s and back can be read by anybody on the way", self.url)
        if not key.isascii() or not key.isprintable():
            raise InvalidInput("characters that no key has", where="the API key", fix="the key alone, on one line")
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._key, self._pause = key, pause
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            trust_env=not local,  # a proxy, which is not asked about this machine
        )

    def close(self) -> None:
        self._client.close()

    def get(self, url: str) -> Mapping[str, Any]:
        """What `post` does, without a body."""
        return self._call("GET", url, None)

    def post(self, url: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The JSON object of the answer.

        Raises PtmUnavailable, RateLimited, BudgetSpent, Unauthenticated, PromptTooLong, InvalidRequest where the server
        refuses the body, and WrongService where what answers is no such server.
        """
        return self._call("POST", url, json.dumps(body).encode())

    def _call(self, method: str, url: str, body: bytes | None) -> Mapping[str, Any]:
        """Calls are pure, so that they can be made again."""
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
            # Not again: it may be computed, and paid, already.
            raise PtmUnavailable(f"no answer in {ANSWER_SECONDS:.0f} seconds", where=where) from None
        except httpx2.TransportError as error:
            raise _Retryable(PtmUnavailable(str(error) or type(error).__name__, where=where)) from None
        if response.status_code != 200:
            raise self._problem(response, self._reason(text), where)
        answer = _object(text)
        if answer is None:
            raise WrongService("an answer that is no JSON object", where=where, fix=_FIX)
        return answer

    def _problem(self, response: httpx2.Response, reason: str, where: str) -> Exception:
        status = response.status_code
        if status == 429 and "insufficient_quota" in reason:
            return BudgetSpent("the service's account with the model's provider is spent", where=where)
        if status in _RETRYABLE_STATUS:
            kind = RateLimited if status == 429 else PtmUnavailable
            return _Retryable(kind(f"HTTP {status} {reason}".strip(), where=where), _retry_after(response))
        if status in (401, 403):
            # What such answers say quotes the key.
            return Unauthenticated(f"HTTP {status}", where=where, fix="a key that the model's server knows")
        if status in (400, 413, 422):
            if any(sign in reason for sign in _TOO_LONG):
                return PromptTooLong(reason, where=where, fix="shorter prompts or examples")
            return InvalidRequest(f"HTTP {status} {reason}".strip(), where=where)
        if response.is_redirect:
            return WrongService("it redirects to another address", where=where, fix="the address where that ends")
        return WrongService(f"HTTP {status} {reason}".strip(), where=where, fix=_FIX)

    def _reason(self, text: bytes) -> str:
        """What a server says of its refusal, in one of the forms that there are."""
        said: Any = _object(text) or {}
        said = said.get("error") or said.get("message") or said.get("detail") or ""
        if isinstance(said, dict):
            said = " ".join(str(said[part]) for part in ("type", "code", "message") if said.get(part))
        plain = " ".join(str(said).split())
        return (plain.replace(self._key, "***") if self._key else plain)[:MAX_REASON_CHARACTERS]


def _parse(url: str) -> httpx2.URL:
    """What is wrong is not quoted: people write keys into URLs."""
    where, fix = "the URL of the model's server", "for example http://127.0.0.1:8000/v1, and the key elsewhere"
    try:
        found = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise InvalidInput("not a URL", where=where, fix=fix) from None
    if found.scheme not in ("http", "https") or not found.host:
        raise InvalidInput("no http:// or https:// and a host", where=where, fix=fix)
    if found.userinfo or found.query or found.fragment:
        raise InvalidInput("a name or password, a question or a fragment in it", where=where, fix=fix)
    return found


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
    """Seconds, from a number of them or from a date."""
    told = response.headers.get("Retry-After", "")
    try:
        seconds = float(told)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if seconds == seconds else None
