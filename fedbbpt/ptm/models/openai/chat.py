"""Reads the first token of the assistant's answer from POST /v1/chat/completions.

The filled template up to and including {prompt} is the system message, and the rest is the user's message. If {prompt}
stands after the text, or nothing stands before the text, there is no system message. A class is the answer's first
word, in any of the usual spellings: as it is written in the task, in lower case or capitalised, with or without a space
before it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedbbpt.errors import InvalidRequest, InvalidTask, ScoreUnavailable
from fedbbpt.ptm.models.openai.endpoint import Endpoint, RequestForm, check_different
from fedbbpt.ptm.models.openai.filled_template import FilledTemplate
from fedbbpt.ptm.models.openai.next_token import WHERE, LabelWord, NextToken, next_token
from fedbbpt.ptm.models.template import Piece, Placeholder

Messages = tuple[str, str]
"""The system message, which may be empty, and the user's message."""

_INSTRUCTION = "Reply with the next word of the list and nothing else. It is yes or no."
PROBES: tuple[Messages, ...] = (
    (_INSTRUCTION, "yes no no yes no yes yes no yes"),
    (_INSTRUCTION, "no yes yes no no yes no yes yes no no"),
    (_INSTRUCTION, "no no yes no yes yes no yes no"),
    (_INSTRUCTION, "yes yes no yes no no yes no yes no"),
)


class Chat(Endpoint[Messages]):
    """A model that answers messages. The server's first refusals decide which variant of the protocol it gets."""

    probes = PROBES
    space = ""
    most_texts = 1
    overhead = 64

    def __init__(self, server: Any, model: str) -> None:
        """Finds out whether the server has a tokenizer, which counts tokens."""
        super().__init__(server, model)
        self._limit = "max_tokens"
        self._has_system_message = True
        self._without_thinking: Mapping[str, Any] = {}
        self._settled = False
        """Whether a request was answered. The requests stay the same from then on, as do the scores."""

    def input(self, row: FilledTemplate, prompt: str) -> Messages:
        """Returns the messages of a pair."""
        return row.messages(prompt)

    def echoes(self, found: NextToken, probe: Messages) -> bool:
        """Returns whether the answer begins with the probe."""
        return found.written.startswith(probe[1])

    def check_template(self, pieces: Sequence[Piece]) -> None:
        """Raises InvalidTask for a {mask} before the end. The answer begins after the template, so it needs none."""
        if any(piece.placeholder is Placeholder.MASK for piece in pieces[:-1]):
            fix = "{mask} at the end, or none: a class is the answer's first word"
            raise InvalidTask("{mask} stands before the end", where="template", fix=fix)

    def label_words(self, pieces: Sequence[Piece], words: Sequence[str]) -> tuple[LabelWord, ...]:
        """Returns the label words as they begin an answer. Raises InvalidTask."""
        return self.labels(words)

    def labels(self, words: Sequence[str]) -> tuple[LabelWord, ...]:
        """Returns label words with all their spellings. Raises InvalidTask if two words share one."""
        labels = []
        for word in words:
            cases = dict.fromkeys((word, word.lower(), word.capitalize()))
            spellings = [space + case for space in ("", " ") for case in cases]
            labels.append(LabelWord(spellings[0], None, tuple(spellings[1:])))
            if self.has_tokenizer and not any(len(self.tokenise(spelling)) == 1 for spelling in spellings):
                what = f"label word {word!r} is not one token to the model"
                raise InvalidTask(what, where="classes", fix="words of one token each")
        check_different([word.casefold() for word in words])
        return tuple(labels)

    def next_tokens(
        self, inputs: Sequence[Messages], labels: Sequence[LabelWord], form: RequestForm
    ) -> list[NextToken]:
        """Returns the first token of the answer to the only input; as `Endpoint.next_tokens`."""
        (messages,) = inputs
        (choice,) = self._answer(messages, form)
        if _reasons(choice):
            return [self._answer_without_thinking(messages, labels, form)]
        self._settled = True
        return [next_token(choice, _written(choice), likeliest=True)]

    def _answer(self, messages: Messages, form: RequestForm) -> list[Mapping[str, Any]]:
        system, user = messages
        if system and not self._has_system_message:
            system, user = "", f"{system}\n\n{user}"
        body = {
            "messages": [
                {"role": role, "content": text} for role, text in (("system", system), ("user", user)) if text
            ],
            self._limit: 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": form.top_logprobs,
            **self._without_thinking,
        }
        try:
            return self._choices("/chat/completions", body, 1)
        except InvalidRequest as error:
            if self._settled or not self._adapt(error.what):
                raise
        return self._answer(messages, form)

    def _adapt(self, refusal: str) -> bool:
        """Changes the requests as a refusal asks for, and returns whether that is possible."""
        if "max_completion_tokens" in refusal and self._limit == "max_tokens":
            self._limit = "max_completion_tokens"
            return True
        if "system" in refusal.lower() and "role" in refusal.lower() and self._has_system_message:
            self._has_system_message = False
            return True
        return False

    def _answer_without_thinking(self, messages: Messages, labels: Sequence[LabelWord], form: RequestForm) -> NextToken:
        """Asks again, with the switch by which chat templates of vLLM, SGLang and llama.cpp leave the reasoning out."""
        if self._without_thinking or self._settled:
            fix = "a model without reasoning, or a server that is started with reasoning off"
            raise ScoreUnavailable("the model reasons before it answers", where=WHERE, fix=fix)
        self._without_thinking = {"chat_template_kwargs": {"enable_thinking": False}}
        return self.next_tokens([messages], labels, form)[0]


def _written(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    return str((message.get("content") if isinstance(message, dict) else None) or "")


def _reasons(choice: Mapping[str, Any]) -> bool:
    """Returns whether an answer begins with reasoning, as text or in a field of its own."""
    message = choice.get("message")
    fields = message if isinstance(message, dict) else {}
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    token = str(first.get("token")) if isinstance(first, dict) else ""
    marked = any(text.lstrip().startswith("<think") for text in (token, _written(choice)))
    return marked or bool(fields.get("reasoning_content") or fields.get("reasoning"))
