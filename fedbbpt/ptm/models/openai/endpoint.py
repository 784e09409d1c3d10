"""One model of a server that speaks OpenAI's protocol. `completions` and `chat` are the two kinds of requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from fedbbpt.errors import InvalidRequest, InvalidTask, RevisionChanged, Unauthenticated, WrongService
from fedbbpt.ptm.models.openai.filled_template import FilledTemplate
from fedbbpt.ptm.models.openai.http import Server
from fedbbpt.ptm.models.openai.next_token import WHERE, LabelWord, NextToken
from fedbbpt.ptm.models.template import Piece

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RequestForm:
    """The form of requests that a server supports."""

    top_logprobs: int
    """Number of the likeliest tokens that are requested."""
    most_logprobs: int = 0
    """Number that is requested if a label word is not among those; 0: no more than `top_logprobs`."""
    requests_label_ids: bool = False
    """Requests the log-probabilities of the label words themselves (vLLM)."""
    tokens_as_ids: bool = False
    """Requests token ids in place of tokens' texts (vLLM)."""
    texts_per_request: int = 16
    """Most inputs in one request."""


class Endpoint(Generic[T]):
    """One model of a server. T is an input of the model. Thread-safe."""

    probes: ClassVar[Sequence[Any]]
    """Inputs for the self-test. In each, the answers " yes" and " no" follow one another at random."""
    space: ClassVar[str]
    """White space between a probe and its label word."""
    most_texts: ClassVar[int]
    """Most inputs that one request can hold."""
    overhead: ClassVar[int]
    """Tokens of the model's length that no input can have: the token that is generated, and those between messages."""

    def __init__(self, server: Server, model: str) -> None:
        """Finds out whether the server has a tokenizer."""
        self._server, self._model = server, model
        self.has_tokenizer = self._has_tokenizer()
        self.identity: tuple[str, str] | None = None
        """Names of model and server in the first answer. Later answers must have the same."""

    def input(self, row: FilledTemplate, prompt: str) -> T:
        """Returns the input of a pair."""
        raise NotImplementedError

    def echoes(self, found: NextToken, probe: T) -> bool:
        """Returns whether the answer to a probe repeats the probe."""
        raise NotImplementedError

    def check_template(self, pieces: Sequence[Piece]) -> None:
        """Raises InvalidTask unless a label word can follow the template."""
        raise NotImplementedError

    def label_words(self, pieces: Sequence[Piece], words: Sequence[str]) -> tuple[LabelWord, ...]:
        """Returns the label words as they follow a template.

        Raises:
            InvalidTask: A word is not one token, or two words are the same token.
        """
        raise NotImplementedError

    def next_tokens(self, inputs: Sequence[T], labels: Sequence[LabelWord], form: RequestForm) -> list[NextToken]:
        """Returns the next token after each input, by one request.

        Raises:
            ScoreUnavailable: The answer has no log-probabilities.
            RevisionChanged: The answer is from another model or server than the first one.
            FedbbptError: Other errors are those of `Server.post`.
        """
        raise NotImplementedError

    def tokenise(self, text: str, *, special: bool = False) -> Sequence[int]:
        """Returns the token ids of a text, by POST /tokenize of vLLM, SGLang and llama.cpp.

        `special`: with the model's own special tokens.
        """
        body = {"model": self._model, "prompt": text, "content": text, **_special(special)}
        answer = self._server.post(f"{self._server.root}/tokenize", body)
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise WrongService("no list of token ids", where=WHERE)
        return tokens

    def _has_tokenizer(self) -> bool:
        try:
            return bool(self.tokenise("a"))
        except (InvalidRequest, Unauthenticated, WrongService):
            return False

    def _choices(self, path: str, body: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
        """Sends a request and returns the choices of the answer, one for each of `count` inputs."""
        answer = self._server.post(f"{self._server.url}{path}", {"model": self._model, **body})
        self._check_identity(answer)
        choices = answer.get("choices")
        found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        numbered = {str(choice.get("index")): choice for choice in found}
        wanted = list(map(str, range(count)))
        if len(found) != count or numbered.keys() != set(wanted):
            raise WrongService(f"choices {list(numbered)} for {count} texts", where=WHERE, fix="one for each")
        return [numbered[index] for index in wanted]

    def _check_identity(self, answer: Mapping[str, Any]) -> None:
        identity = str(answer.get("model") or ""), str(answer.get("system_fingerprint") or "")
        self.identity = self.identity or identity
        if identity != self.identity:
            what = f"it was {' '.join(self.identity)} at the start, and is {' '.join(identity)}"
            raise RevisionChanged(what.strip(), where=WHERE, fix="restart the PTM service")


def check_different(words: Sequence[object]) -> None:
    """Raises InvalidTask if two label words are the same to the model."""
    if len(set(words)) < len(words):
        raise InvalidTask("two label words are the same token", where="classes", fix="different words")


def _special(wanted: bool) -> dict[str, bool]:
    """Returns the switch for special tokens as vLLM and SGLang name it, and as llama.cpp does."""
    return {"add_special_tokens": wanted, "add_special": wanted}
