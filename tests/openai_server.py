"""A real HTTP server on loopback that speaks OpenAI's protocol, with a checkpoint's logits, and faults on demand.

It answers completions and chat completions, and speaks four dialects: "vllm" tokenises, takes logprob_token_ids and
names tokens by ids on demand; "sglang" tokenises; "llama.cpp" tokenises and lists log-probabilities with ids; "openai"
does none of this, and refuses unknown arguments.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import transformers

MODEL = "tiny"
ARGUMENTS = {
    "/v1/completions": {"model", "prompt", "max_tokens", "temperature", "logprobs"},
    "/v1/chat/completions": {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs"},
}
"""The arguments that "openai" accepts."""


@dataclass
class Behaviour:
    """The server's behaviour. A test may change it while the server runs."""

    dialect: str = "vllm"
    max_logprobs: int = 1000
    max_model_len: int | None = 96
    fingerprint: str = "fp_1"
    first_text_only: bool = False
    """Answers only the first text of a list."""
    omits_logprobs: bool = False
    """Sends no log-probabilities."""
    echoes: bool = False
    """Puts the text itself into its answer."""
    ignores_max_tokens: bool = False
    strips_spaces: bool = False
    """Strips the spaces from tokens' texts, as some tokenizers do when they decode single tokens."""
    sharpness: float = 1.0
    """Multiplies log-probabilities. Below 1, the probabilities sum to more than 1."""
    has_system_role: bool = True
    output_limit: str = "max_tokens"
    """The argument of chat completions that limits the answer; another one is refused."""
    reasons: str = ""
    """"always" begins every chat answer with reasoning; "unless switched off" obeys the switch of chat templates."""
    drift: float = 0.0
    """Difference of log-probabilities between one answer and the next."""
    refusals: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """Refusals that are sent before any answer, one after another; the last one for ever if `repeats_last_refusal`."""
    repeats_last_refusal: bool = False
    body: bytes | None = None
    """Sent in place of a completion."""


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that close a connection before the end of an answer."""


class OpenAIServer:
    """The server, which runs in a thread of its own until it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.behaviour = Behaviour()
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        """Path, headers and body of each request."""
        self.lock = threading.Lock()
        auto: Any = transformers
        self._tokenizer = auto.AutoTokenizer.from_pretrained(folder)
        self._model = auto.AutoModelForCausalLM.from_pretrained(folder).eval()
        self._answers = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # sends an answer in one packet: a second one would wait for the acknowledgement of the first

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                with server.lock:
                    server.requests.append((self.path, dict(self.headers), body))
                    status, headers, text = server.answer(self.path, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._http = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def name(self) -> str:
        return f"openai:{MODEL}@{self.url}"

    @property
    def chat_name(self) -> str:
        return f"openai-chat:{MODEL}@{self.url}"

    def completions(self) -> list[dict[str, Any]]:
        """Returns the bodies of all completion requests."""
        return [body for path, _, body in self.requests if path in ARGUMENTS]

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        behaviour = self.behaviour
        if behaviour.refusals:
            last = behaviour.repeats_last_refusal and len(behaviour.refusals) == 1
            return behaviour.refusals[0] if last else behaviour.refusals.pop(0)
        if path == "/v1/models":
            listed = {
                "id": MODEL,
                "object": "model",
                "created": self._answers,
                "max_model_len": behaviour.max_model_len,
            }
            return _json({"object": "list", "data": [listed]})
        if path == "/tokenize" and behaviour.dialect != "openai":
            part, special = "prompt", "add_special_tokens"
            if behaviour.dialect == "llama.cpp":
                part, special = "content", "add_special"
            return _json({"tokens": self._tokenizer(body[part], add_special_tokens=body[special])["input_ids"]})
        if path not in ARGUMENTS:
            return _json({"detail": "Not Found"}, 404)
        if behaviour.body is not None:
            return 200, {}, behaviour.body
        if behaviour.dialect == "openai" and (unknown := body.keys() - ARGUMENTS[path] - {behaviour.output_limit}):
            return _refusal(f"Unrecognized request arguments: {sorted(unknown)}")
        return self._completion(body) if path == "/v1/completions" else self._chat(body)

    def _chat(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        behaviour, messages = self.behaviour, body["messages"]
        if behaviour.output_limit not in body:
            return _refusal(f"Unsupported parameter: use '{behaviour.output_limit}' instead")
        if messages[0]["role"] == "system" and not behaviour.has_system_role:
            return _refusal("System role not supported")
        text = "".join(" " + message["content"].strip() for message in messages)
        as_text = {**body, "prompt": text, "logprobs": body["top_logprobs"]}
        status, headers, answer = self._completion(as_text)
        if status != 200:
            return status, headers, answer
        found = json.loads(answer)
        for choice in found["choices"]:
            choice["message"] = {"role": "assistant", "content": choice.pop("text")}
            thinks = body.get("chat_template_kwargs", {}).get("enable_thinking", True)
            if behaviour.reasons == "always" or (behaviour.reasons and thinks):
                choice["message"] = {"role": "assistant", "content": None, "reasoning_content": "Okay"}
            if choice["logprobs"] and "content" not in choice["logprobs"]:
                positions = choice["logprobs"]["top_logprobs"]
                listed = [{"token": token, "logprob": value} for token, value in positions[0].items()]
                choice["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}] * len(positions)}
        return _json(found)

    def _completion(self, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        behaviour = self.behaviour
        if body["logprobs"] > behaviour.max_logprobs:
            return _refusal(f"logprobs of {body['logprobs']}, at most {behaviour.max_logprobs}")
        texts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
        inputs = [self._tokenizer(text)["input_ids"] for text in texts]
        if behaviour.max_model_len is not None and max(map(len, inputs)) >= behaviour.max_model_len:
            return _refusal(f"This model's maximum context length is {behaviour.max_model_len} tokens")
        if behaviour.first_text_only:
            texts = texts[:1]
        self._answers += 1
        choices = [self._choice(i, text, ids, body) for i, (text, ids) in enumerate(zip(texts, inputs, strict=False))]
        answer = {"model": MODEL, "system_fingerprint": behaviour.fingerprint, "choices": choices}
        return _json({**answer, "usage": {"prompt_tokens": sum(map(len, inputs))}})

    def _choice(self, index: int, text: str, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
        behaviour = self.behaviour
        with torch.inference_mode():
            values = self._model(torch.tensor([ids])).logits[0, -1].log_softmax(-1) * behaviour.sharpness
        values = values - behaviour.drift * self._answers
        top = [int(token) for token in values.topk(min(body["logprobs"], len(values))).indices]
        shown = body.get("logprob_token_ids") if behaviour.dialect == "vllm" else None
        tokens = list(dict.fromkeys([top[0], *(shown or top)]))
        written = self._tokenizer.decode([top[0]])
        positions = 1 + 3 * behaviour.ignores_max_tokens
        choice = {"index": index, "text": (text if behaviour.echoes else "") + written, "logprobs": None}
        if behaviour.omits_logprobs:
            return choice
        if behaviour.dialect == "llama.cpp":
            listed = [{"id": token, "token": self._token(token), "logprob": float(values[token])} for token in tokens]
            return {**choice, "logprobs": {"content": [{**listed[0], "top_logprobs": listed}] * positions}}
        named = behaviour.dialect == "vllm" and body.get("return_tokens_as_token_ids")
        names = [f"token_id:{token}" if named else self._token(token) for token in tokens]
        by_name: dict[str, float] = {}
        for name, token in zip(names, tokens, strict=True):
            by_name.setdefault(name, float(values[token]))
        return {**choice, "logprobs": {"tokens": names[:1] * positions, "top_logprobs": [by_name] * positions}}

    def _token(self, token: int) -> str:
        text: str = self._tokenizer.decode([token])
        return text.lstrip() if self.behaviour.strips_spaces else text


def _json(answer: dict[str, Any], status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(answer).encode()


def _refusal(message: str) -> tuple[int, dict[str, str], bytes]:
    return _json({"error": {"message": message, "type": "invalid_request_error", "code": None}}, 400)
