"""Sentence encoders score as sentence-transformers does, and what the service does not support is refused."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput, InvalidTask
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import Examples, Injection, Scores, SoftPrompts, TaskSpec, TextPrompts
from tests.jobs import score
from tests.slow import slow_except

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

Checkpoint = Callable[[str], Path]
Make = Callable[..., Path]
Settings = dict[str, Any]

TEXTS = ("the film was very good", "dull", "who wrote this long book", "where is paris", "a story so fine")
PROMPTS = ("which kind of", "what place")
CLASSES = ("a number", "a person in a place", "A Story")
WIDTH = 32
PACKAGE = "sentence_transformers.models"
TRANSFORMER, POOLING = (
    {"type": f"{PACKAGE}.Transformer", "path": ""},
    {"type": f"{PACKAGE}.Pooling", "path": "1_Pooling"},
)
OLD_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@pytest.fixture
def make(checkpoint: Checkpoint, tmp_path: Path) -> Make:
    """Makes the folder of a sentence encoder from a checkpoint, modules after its pooling, and files of settings."""

    def made(
        *modules: tuple[str, Settings, Mapping[str, Sequence[int]]],
        name: str = "bert-encoder",
        pooling: Settings | None = None,
        path: str = "",
        files: Mapping[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / "encoder"
        shutil.copytree(checkpoint(name), folder / path)
        listed = [{**TRANSFORMER, "path": path}, POOLING]
        _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, **(pooling or {})})
        for number, (kind, settings, shapes) in enumerate(modules, 2):
            listed.append({"type": f"{PACKAGE}.{kind}", "path": f"{number}_{kind}"})
            _write(folder / f"{number}_{kind}/config.json", settings)
            draw = torch.Generator().manual_seed(number)
            weights = {key: torch.randn(*shape, generator=draw) * 0.3 for key, shape in shapes.items()}
            if weights:
                safetensors.save_file(weights, folder / f"{number}_{kind}/model.safetensors")
        _write(folder / "modules.json", [{**module, "name": str(n)} for n, module in enumerate(listed)])
        for name, content in (files or {}).items():
            _write(folder / name, content)
        return folder

    return made


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def ask(folder: Path, task: TaskSpec | None = None, prompts: Any = None, texts: Sequence[str] = TEXTS) -> Scores:
    backend, task = load(str(folder), threads=1), task or TaskSpec("{prompt} {text}", CLASSES)
    assert backend.describe().family == "dual-encoder"
    backend.check(task)
    rows = backend.prepare(task, Examples(tuple(texts)), 4, None)
    return score(backend, task, prompts or TextPrompts(PROMPTS), rows)


def judge(folder: Path, inputs: Sequence[str], classes: Sequence[str] = CLASSES) -> Any:
    """Returns 20 times the cosines of what sentence-transformers makes of inputs and classes."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    options = {"convert_to_tensor": True, "normalize_embeddings": True, "show_progress_bar": False}
    return 20 * (model.encode(list(inputs), **options) @ model.encode(list(classes), **options).T).numpy()


def assert_close(ours: Scores, theirs: Any) -> None:
    assert np.abs(ours.reshape(theirs.shape) - theirs).max() < 1e-4


FILLED = [f"{prompt} {text}" for prompt in PROMPTS for text in TEXTS]
DENSE: tuple[Any, ...] = (
    "Dense",
    {"in_features": WIDTH, "out_features": 12, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"},
    {"linear.weight": (12, WIDTH), "linear.bias": (12,)},
)
WITH_RESIDUAL: tuple[Any, ...] = (
    "Dense",
    {
        "in_features": WIDTH,
        "out_features": 12,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "use_residual": True,
    },
    {"linear.weight": (12, WIDTH), "residual.weight": (12, WIDTH)},
)
NORM: tuple[Any, ...] = ("LayerNorm", {"dimension": WIDTH}, {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,)})
NORMALIZE: tuple[Any, ...] = ("Normalize", {}, {})
SETTINGS, TRANSFORMER_SETTINGS = "config_sentence_transformers.json", "sentence_bert_config.json"
AS_JUDGED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    **{f"{mode} in one key": ((), {"pooling": {"pooling_mode": mode}}) for mode in OLD_FLAGS},
    **{f"{mode} as a flag": ((), {"pooling": {flag: True}}) for mode, flag in OLD_FLAGS.items()},
    "two flags": ((), {"pooling": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}}),
    "two modes": ((NORMALIZE,), {"pooling": {"pooling_mode": ["mean", "cls"]}}),
    "no mode": ((), {"pooling": {"pooling_mode_mean_tokens": False}}),
    "dense": ((DENSE,), {}),
    "normalised before dense": ((NORMALIZE, DENSE, NORMALIZE), {"pooling": {"pooling_mode": "cls"}}),
    "dense with residual": ((WITH_RESIDUAL,), {}),
    "layer norm and dropout": ((("Dropout", {"dropout": 0.5}, {}), NORM), {}),
    "first components": ((NORMALIZE,), {"files": {SETTINGS: {"truncate_dim": 8}}}),
    "dot product of unit vectors": ((NORMALIZE,), {"files": {SETTINGS: {"similarity_fn_name": "dot"}}}),
    "own prompt": ((), {"files": {SETTINGS: {"prompts": {"q": "film {a}: "}, "default_prompt_name": "q"}}}),
    "prompts that nobody asks for": ((), {"files": {SETTINGS: {"prompts": {"query": "film: ", "document": "book: "}}}}),
    "transformer in a folder": ((), {"path": "0_Transformer", "pooling": {"pooling_mode": "cls"}}),
    "lower case": ((), {"name": "roberta-mlm", "files": {TRANSFORMER_SETTINGS: {"do_lower_case": True}}}),
    "made from a masked LM": ((), {"name": "bert-mlm"}),
    "last token of a causal model": ((), {"name": "llama", "pooling": {"pooling_mode": "lasttoken"}}),
    "first token of a causal model": ((), {"name": "gpt2", "pooling": {"pooling_mode_cls_token": True}}),
}


@pytest.mark.filterwarnings("ignore")  # of the imports of sentence-transformers
@pytest.mark.parametrize("case", slow_except(AS_JUDGED, "normalised before dense"))
def test_scores_are_those_of_sentence_transformers(make: Make, case: str) -> None:
    modules, options = AS_JUDGED[case]
    folder = make(*modules, **options)
    assert_close(ask(folder), judge(folder, FILLED))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["cls", "lasttoken", "weightedmean"])
def test_a_prompt_after_the_text_is_pooled_with_it(make: Make, mode: str) -> None:
    folder = make(pooling={"pooling_mode": mode})
    filled = [f"{text} {prompt}" for prompt in PROMPTS for text in TEXTS]
    assert_close(ask(folder, TaskSpec("{text} {prompt}", CLASSES)), judge(folder, filled))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_text_is_cut_where_sentence_transformers_cuts_it(make: Make) -> None:
    folder = make(files={TRANSFORMER_SETTINGS: {"max_seq_length": 12}}, pooling={"pooling_mode": "lasttoken"})
    texts = ["the film was very good " * 8, "dull"]
    backend = load(str(folder), threads=1)
    assert backend.describe().max_tokens == 12
    task = TaskSpec("{text}", CLASSES)
    ours = score(backend, task, TextPrompts(("",)), backend.prepare(task, Examples(tuple(texts)), 0, None))
    assert_close(ours, judge(folder, texts))
    with pytest.raises(InvalidTask, match="at most 12"):
        backend.check(TaskSpec("{text}", ("good " * 20, "bad")))
    assert load(str(folder), threads=1, max_length=40).describe().max_tokens == 40  # as the transformer takes


POOLED: dict[str, Callable[[Any], Any]] = {
    "cls": lambda hidden: hidden[0],
    "lasttoken": lambda hidden: hidden[-1],
    "mean": lambda hidden: hidden.mean(0),
    "max": lambda hidden: hidden.max(0).values,
}


def plain_encoder(folder: Path, mode: str) -> Callable[[str, Any], Any]:
    """Returns a function that embeds a text with vectors `[L, D]` after its first token, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def embed(text: str, vectors: Any) -> Any:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        words = model.get_input_embeddings()(ids)
        joined = torch.cat([words[:, :1], torch.tensor(vectors)[None], words[:, 1:]], dim=1)
        return torch.nn.functional.normalize(POOLED[mode](model(inputs_embeds=joined).last_hidden_state[0]), dim=-1)

    return embed


@pytest.mark.parametrize("mode", POOLED)
def test_vectors_are_pooled_with_the_text(make: Make, mode: str) -> None:
    """The first and the last token stay the special ones: the vectors join between them."""
    folder = make(pooling={OLD_FLAGS[mode]: True})
    vectors = np.random.default_rng(0).normal(0, 0.3, (2, 3, WIDTH)).astype(np.float32)
    embed = plain_encoder(folder, mode)
    with torch.no_grad():
        classes = torch.stack([embed(text, np.zeros((0, WIDTH), np.float32)) for text in CLASSES])
        theirs = [[(20 * classes @ embed(text, each)).tolist() for text in TEXTS] for each in vectors]
    assert_close(ask(folder, prompts=SoftPrompts(vectors)), np.array(theirs))


@pytest.mark.parametrize("mode", slow_except(POOLED, "mean", "lasttoken"))
def test_vectors_in_the_class_texts_are_pooled_with_them(make: Make, mode: str) -> None:
    """Kills: vectors in the inputs as well; vectors before the first token or after the last."""
    folder = make(pooling={OLD_FLAGS[mode]: True})
    vectors = np.random.default_rng(0).normal(0, 0.3, (2, 3, WIDTH)).astype(np.float32)
    embed = plain_encoder(folder, mode)
    with torch.no_grad():
        inputs = torch.stack([embed(text, np.zeros((0, WIDTH), np.float32)) for text in TEXTS])
        theirs = [torch.stack([20 * inputs @ embed(text, each) for text in CLASSES], dim=1) for each in vectors]
    assert_close(ask(folder, prompts=SoftPrompts(vectors, Injection.CLASS)), torch.stack(theirs).numpy())


def test_an_encoder_is_recognised_by_its_modules_whatever_its_configuration_names(make: Make) -> None:
    folder = make()
    config = json.loads((folder / "config.json").read_text())
    _write(folder / "config.json", config | {"architectures": ["BertForMaskedLM"]})
    assert load(str(folder), threads=1).describe().family == "dual-encoder"


def test_scores_do_not_depend_on_the_batch(make: Make) -> None:
    folder = make(DENSE, NORM, pooling={"pooling_mode": "weightedmean"})
    _write(folder / "3_LayerNorm/config.json", {"dimension": 12})
    safetensors.save_file(
        {"norm.weight": torch.ones(12), "norm.bias": torch.zeros(12)}, folder / "3_LayerNorm/model.safetensors"
    )
    backend, task = load(str(folder), threads=1), TaskSpec("{prompt} {text}", CLASSES)
    rows = backend.prepare(task, Examples(TEXTS), 4, None)
    alone = [score(backend, task, TextPrompts(PROMPTS), [row])[:, 0] for row in rows]
    assert np.array_equal(score(backend, task, TextPrompts(PROMPTS), rows), np.stack(alone, axis=1))
    assert backend.describe().score_noise == 0


REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "another mode": ((), {"pooling": {"pooling_mode": "median"}}, "pooling_mode = .*median.* is not supported"),
    "an unknown flag": ((), {"pooling": {"pooling_mode_median_tokens": True}}, "pooling_mode_median_tokens"),
    "a module of another kind": ((("CNN", {}, {}),), {}, "the module CNN is not supported"),
    "a second pooling": ((("Pooling", {}, {}),), {}, "Transformer, Pooling, Pooling are not supported in this order"),
    "other similarity": ((), {"files": {SETTINGS: {"similarity_fn_name": "dot"}}}, "similarity_fn_name = 'dot'"),
    "cut dot product": (
        (NORMALIZE,),
        {"files": {SETTINGS: {"similarity_fn_name": "dot", "truncate_dim": 8}}},
        "similarity_fn_name = 'dot'",
    ),
    "own prompt outside the pooling": (
        (),
        {
            "pooling": {"include_prompt": False},
            "files": {SETTINGS: {"prompts": {"q": "film: "}, "default_prompt_name": "q"}},
        },
        "default_prompt_name = 'q' is not supported; a pooling with include_prompt = true",
    ),
    "sparse": ((), {"files": {SETTINGS: {"model_type": "SparseEncoder"}}}, "a SparseEncoder is no dual encoder"),
    "messages": (
        (),
        {"files": {TRANSFORMER_SETTINGS: {"modality_config": {"message": {"method": "forward"}}}}},
        "modality_config",
    ),
    "another task": ((), {"files": {TRANSFORMER_SETTINGS: {"transformer_task": "fill-mask"}}}, "transformer_task"),
    "an argument of the model": (
        (),
        {"files": {TRANSFORMER_SETTINGS: {"config_args": {"is_decoder": True}}}},
        r"config_args\.is_decoder = True is not supported",
    ),
    "dense on tokens": (
        (("Dense", {**DENSE[1], "module_input_name": "token_embeddings"}, DENSE[2]),),
        {},
        "module_input_name = 'token_embeddings'",
    ),
    "code as activation": (
        (("Dense", {**DENSE[1], "activation_function": "os.system"}, DENSE[2]),),
        {},
        "activation_function = 'os.system'",
    ),
    "dense without weights": ((("Dense", DENSE[1], {}),), {}, r"no model\.safetensors"),
    "dense with other weights": ((("Dense", DENSE[1], {"linear.weight": (3, 3)}),), {}, "the weights do not fit"),
    "dense that does not fit": (
        (DENSE, (*DENSE[:1], {**DENSE[1], "in_features": 99}, {"linear.weight": (12, 99), "linear.bias": (12,)})),
        {},
        "do not fit each other",
    ),
    "modules that are no list": ((), {"files": {"modules.json": {"a": 1}}}, "not a list of modules"),
    "bare word embeddings": (
        (),
        {"files": {"modules.json": [{"type": f"{PACKAGE}.StaticEmbedding", "path": "1_Pooling"}]}},
        "the module StaticEmbedding is not supported",
    ),
    "code of the checkpoint": (
        (),
        {"files": {"modules.json": [TRANSFORMER, {"type": "custom.Pooling", "path": "1_Pooling"}]}},
        r"the module custom\.Pooling is not supported",
    ),
    "modules elsewhere": ((), {"files": {"modules.json": [TRANSFORMER, {**POOLING, "path": "../x"}]}}, "outside"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(make: Make, case: str) -> None:
    modules, options, match = REFUSED[case]
    with pytest.raises(InvalidInput, match=match):
        load(str(make(*modules, **options)), threads=1, family="dual-encoder")


def test_a_sparse_encoder_may_still_be_a_masked_lm(make: Make) -> None:
    folder = make(name="bert-mlm", files={SETTINGS: {"model_type": "SparseEncoder"}})
    assert load(str(folder), threads=1).describe().family == "masked-lm"
