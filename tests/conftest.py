"""Tiny random checkpoints of every family, the PTM service on a port of its own, and a tiny federation's data."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from fedbbpt.ptm.engine import Engine
from fedbbpt.splits import Splits, prepare
from fedbbpt.wire.channel import ClientTls, ServerTls
from tests.federation import AdvancingLoop, Security, job, write_data

# A shell that starts the tests in its background has them ignore Ctrl-C, and so would the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = (
    "a an the it was is who what where when which kind of question film story this good bad great fine dull long "
    "very not so how many people live in paris wrote book number person place word one two negative positive"
)
MAX_TOKENS = 48


def _tokenizer(style: str) -> Any:
    """Word pieces with [CLS] and [SEP], or byte-level BPE: with <s> and </s> for "roberta", bare for "gpt"."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if style == "wordpiece":
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        names["mask_token"] = "[MASK]"
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(names.values()))
        corpus = [WORDS]
        ends = ("[CLS]", "[SEP]")
    else:
        names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        if style == "roberta":
            names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        # As RoBERTa's own, the mask takes the space before it.
        special = [AddedToken(n, lstrip=n == "<mask>", special=True) for n in dict.fromkeys(names.values())]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=alphabet)
        corpus = [f"{word} {word}" for word in WORDS.split()] * 3
        ends = ("<s>", "</s>")
    tokenizer.train_from_iterator(corpus, trainer)
    if style != "gpt":
        ids = [(token, tokenizer.token_to_id(token)) for token in ends]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{ends[0]} $A {ends[1]}", special_tokens=ids)
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, model_max_length=MAX_TOKENS, **names)


def _model(name: str, vocabulary: int, pad: int) -> Any:
    import torch
    import transformers as t

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    shared: dict[str, Any] = {"vocab_size": vocabulary, "initializer_range": 0.3, "pad_token_id": pad}
    labels: dict[str, Any] = {
        "id2label": {0: "bad", 1: "fine", 2: "great"},
        "label2id": {"bad": 0, "fine": 1, "great": 2},
    }
    bert: dict[str, Any] = {**sizes, **shared, "max_position_embeddings": MAX_TOKENS}
    roberta: dict[str, Any] = {**sizes, **shared, "max_position_embeddings": MAX_TOKENS + pad + 1, "type_vocab_size": 1}
    opt: dict[str, Any] = {"ffn_dim": 64, "max_position_embeddings": MAX_TOKENS, "word_embed_proj_dim": 32}
    bart: dict[str, Any] = {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "max_position_embeddings": MAX_TOKENS,
    }
    gpt2: dict[str, Any] = {**shared, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": MAX_TOKENS}
    makers: dict[str, Callable[[], Any]] = {
        "bert-encoder": lambda: t.BertModel(t.BertConfig(**bert)),
        "bert-mlm": lambda: t.BertForMaskedLM(t.BertConfig(**bert)),
        "bert-classifier": lambda: t.BertForSequenceClassification(t.BertConfig(**bert, **labels)),
        "roberta-mlm": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**roberta)),
        "roberta-classifier": lambda: t.RobertaForSequenceClassification(t.RobertaConfig(**roberta, **labels)),
        "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2)),
        "gpt2-classifier": lambda: t.GPT2ForSequenceClassification(t.GPT2Config(**gpt2, **labels)),
        "opt": lambda: t.OPTForCausalLM(t.OPTConfig(**sizes, **shared, **opt)),
        "bart-classifier": lambda: t.BartForSequenceClassification(t.BartConfig(**shared, **bart, **labels)),
        "llama": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(**sizes, **shared, num_key_value_heads=2, max_position_embeddings=MAX_TOKENS)
        ),
    }
    torch.manual_seed(0)
    return makers[name]()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny random model: "bert-mlm", "gpt2" and so on (`_model`), made when first asked for."""
    pytest.importorskip("transformers")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            style = {"bert": "wordpiece", "bart": "wordpiece", "roberta": "roberta"}.get(name.partition("-")[0], "gpt")
            tokenizer = _tokenizer(style)
            made[name] = tmp_path_factory.mktemp("checkpoints") / name
            tokenizer.save_pretrained(made[name])
            _model(name, len(tokenizer), tokenizer.pad_token_id).save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture(scope="session")
def server_loop() -> Iterator[AdvancingLoop]:
    """An event loop in a thread of its own, for servers that tests call from outside."""
    loop = AdvancingLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class PtmServers:
    """PTM services on loopback ports."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[int, Any] = {}

    def start(self, engine: Engine, **options: Any) -> int:
        """The port: `port`, or a free one."""
        from fedbbpt.ptm.service import serve

        server, port = asyncio.run_coroutine_threadsafe(serve(engine, **options), self._loop).result()
        self._running[port] = server
        return port

    def stop(self, port: int) -> None:
        asyncio.run_coroutine_threadsafe(self._running.pop(port).stop(None), self._loop).result()

    def stop_all(self) -> None:
        for port in list(self._running):
            self.stop(port)


@pytest.fixture
def ptm_servers(server_loop: asyncio.AbstractEventLoop) -> Iterator[PtmServers]:
    servers = PtmServers(server_loop)
    yield servers
    servers.stop_all()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits of a tiny task."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def splits(data: Path) -> Splits:
    return prepare(job(data))


@pytest.fixture(scope="session")
def security(tmp_path_factory: pytest.TempPathFactory) -> Security:
    """An authority made for this session, and a token."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(folder / "chain.pem", append=True)
    return Security(ServerTls(folder / "chain.pem", folder / "key.pem"), ClientTls(folder / "ca.pem"), "secret")
