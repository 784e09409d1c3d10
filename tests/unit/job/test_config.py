"""Job files: valid ones, and the error messages of invalid ones."""

from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidJob
from fedbbpt.job.config import Job, parse_job, read_job
from fedbbpt.job.job_file import job_text
from fedbbpt.job.settings import task_spec
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks.general_views import GENERAL_VIEWS
from fedbbpt.types import Examples, Injection, LatentPrompts

REFUSED = {
    "unknown key": (
        "[run]\nseed = 1\nround = 3\n",
        "job.toml:3: unknown key 'run.round'; did you mean 'rounds'?",
    ),
    "unknown key like none": (
        "[codec]\nzip = true\n",
        "job.toml:2: unknown key 'codec.zip'; known are uplink, downlink, kept",
    ),
    "unknown section": (
        "[cohrt]\nclients = 3\n",
        "job.toml:1: unknown key 'cohrt'; did you mean 'cohort'?",
    ),
    "key of another method": (
        '[method]\nname = "fed-bpt"\npopulation = 8\n',
        "job.toml:3: unknown key 'method.population'; did you mean 'local_population'?",
    ),
    "column twice": (
        '[task]\ncolumns = ["a person", "a place", "a person"]\n',
        "job.toml:2: task.columns: 'a person' is given twice; each text once",
    ),
    "column that is a class": (
        '[task]\nlabels = ["a", "b"]\nclasses = ["x", "y"]\ncolumns = ["y"]\n',
        "job.toml:4: task.columns: 'y' is given twice, once in task.classes; each text once",
    ),
    "offsets beside a readout": (
        '[task]\nviews = [""]\n[task.prompt]\noffsets = true\n',
        "job.toml:4: task.prompt.offsets: a readout has offsets of its own; offsets = false, or no views, no columns",
    ),
    "offsets beside columns without views": (
        '[task]\ncolumns = "general"\n[task.prompt]\noffsets = true\n',
        "job.toml:4: task.prompt.offsets: a readout has offsets of its own; offsets = false, or no views, no columns",
    ),
    "misspelt general views": (
        '[task]\nviews = "generl"\n',
        "job.toml:2: task.views = \"generl\": input should be a valid array, or input should be 'general'",
    ),
    "search without a prompt": (
        '[task.prompt]\nkind = "none"\n',
        'job.toml:2: task.prompt.kind: fed-cma does not search for "none" prompts with these settings; "latent"',
    ),
    "key of a table in a table": (
        "[task]\n[task.prompt]\ntokens = 0\n",
        "job.toml:3: task.prompt.tokens = 0: input should be greater than or equal to 1",
    ),
    "key of an inline table": (
        "[task]\nprompt = { dim = 0 }\n",
        "job.toml:2: task.prompt.dim = 0: input should be greater than or equal to 1",
    ),
    "dotted key": (
        "task.prompt.dim = 0\n",
        "job.toml:1: task.prompt.dim = 0: input should be greater than or equal to 1",
    ),
    "text for a number": (
        '[run]\nrounds = "6"\n',
        'job.toml:2: run.rounds = "6": input should be a valid integer',
    ),
    "truth for a number": (
        "[run]\nrounds = true\n",
        "job.toml:2: run.rounds = true: input should be a valid integer",
    ),
    "fraction for a whole number": (
        "[run]\nrounds = 6.5\n",
        "job.toml:2: run.rounds = 6.5: input should be a valid integer",
    ),
    "date for a number": (
        "[run]\nrounds = 1979-05-27\n",
        'job.toml:2: run.rounds = "1979-05-27": input should be a valid integer',
    ),
    "infinite": (
        "[data]\nalpha = inf\n",
        "job.toml:2: data.alpha = Infinity: input should be a finite number",
    ),
    "not one of the choices": (
        '[data]\npartition = "random"\n',
        "job.toml:2: data.partition = \"random\": input should be 'dirichlet', 'iid', 'shards' or 'column'",
    ),
    "member of a list": (
        '[task]\nlabels = ["a", 2]\n',
        "job.toml:2: task.labels.1 = 2: input should be a valid string",
    ),
    "unknown method": (
        '[method]\nname = "fed-avg"\n',
        "job.toml:1: method.name = 'fed-avg' is unknown; one of fed-bbpt, fed-bpt, fed-cma, fed-readout, fed-sp, "
        "fedavg-bbt, or the name of an installed plug-in",
    ),
    "method without a name": (
        "[run]\n[method]\nsigma = 1.0\n",
        "job.toml:2: method.name is missing; one of fed-bbpt, fed-bpt, fed-cma, fed-readout, fed-sp, fedavg-bbt, "
        "or the name of an installed plug-in",
    ),
    "classes without labels": (
        '[task]\nclasses = ["yes", "no"]\n',
        "job.toml:2: task.classes: 2 classes for 0 labels; one class text for each of task.labels",
    ),
    "two labels alike": (
        '[task]\nlabels = ["yes", "yes"]\n',
        "job.toml:2: task.labels: two labels are equal; each label once",
    ),
    "preset and labels": (
        '[task]\npreset = "trec"\nlabels = ["a", "b"]\n',
        "job.toml:3: task.labels: task.preset = 'trec' has its own; one of the two",
    ),
    "words for a method that searches numbers": (
        '[method]\nname = "fed-cma"\n[task.prompt]\nkind = "text"\n',
        'job.toml:4: task.prompt.kind: fed-cma does not search for "text" prompts with these settings; "latent"',
    ),
    "numbers for a generator of words": (
        '[method]\nname = "fed-bbpt"\ngenerator = "categorical"\n',
        'job.toml:1: task.prompt.kind: fed-bbpt does not search for "latent" prompts with these settings; "text"',
    ),
    "candidates alike": (
        '[method]\nname = "fed-bbpt"\ngenerator = "categorical"\n[task.prompt]\n'
        'kind = "text"\ncandidates = ["a", "a"]\n',
        "job.toml:6: task.prompt.candidates: fewer than two, or two that are equal; at least two, each once",
    ),
    "cohort larger than the clients": (
        "[cohort]\nclients = 4\nsize = 9\n",
        "job.toml:3: cohort.size: 9 is more than cohort.clients = 4; at most 4, or 0 for all",
    ),
    "not TOML": (
        "[run]\nrounds 6\n",
        "job.toml:2: not TOML: Expected '=' after a key in a key/value pair",
    ),
    "TOML that ends too soon": (
        '[run]\nname = """',
        "job.toml: not TOML: Unterminated string (at end of document)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_job_is_rejected_with_line_key_and_fix(case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(InvalidJob) as caught:
        parse_job(text, "job.toml")
    assert str(caught.value) == message


def test_line_numbers_do_not_count_unicode_line_separators() -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job('[run]\n# one\u2028line\u0085only\nname = "x y"\n', "job.toml")
    assert caught.value.where == "job.toml:3"


def test_empty_file_is_the_default_job() -> None:
    assert parse_job("") == Job()


def test_integer_is_accepted_for_a_float() -> None:
    assert parse_job("[data]\nalpha = 1\n").data.alpha == 1.0


def test_unreadable_file_is_rejected_by_name(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.toml"
    with pytest.raises(InvalidJob) as caught:
        read_job(missing)
    assert caught.value.where == str(missing)
    assert "fedbbpt init" in caught.value.fix


def test_digest_changes_with_everything_that_determines_the_run_and_nothing_else() -> None:
    job = parse_job("")
    course = [
        "[run]\nseed = 1",
        "[run]\nrounds = 7",
        "[task]\nlabels = ['a', 'b']",
        "[method]\nname = 'fed-bpt'",
        "[cohort]\nclients = 5",
        "[codec]\nuplink = 'int8'",
        "[data]\nsource = 'elsewhere.csv'",
        "[ptm]\nmodel = 'fake'",
    ]
    digests = {parse_job(text).digest("r1") for text in course}
    assert len(digests | {job.digest("r1")}) == len(course) + 1
    assert job.digest("r2") not in digests | {job.digest("r1")}, "another model's scores do not fit this run"
    assert parse_job("[ptm]\naddress = 'ptm.example.org:7001'").digest("r1") == job.digest("r1")
    assert parse_job("[ptm]\nthreads = 2").digest("r1") == job.digest("r1")


def test_projection_depends_on_the_seed_of_the_run() -> None:
    spaces = [parse_job(f"[run]\nseed = {seed}").space() for seed in (0, 0, 1)]
    assert spaces[0] == spaces[1] != spaces[2]


@pytest.mark.parametrize("injection", sorted(set(Injection) - {Injection.CLASS}))
def test_injection_of_the_prompt_is_that_of_the_job(injection: Injection) -> None:
    space = parse_job(f"[task.prompt]\ninjection = '{injection}'").space()
    prompts = space.prompts(np.zeros((1, space.dim)), Examples(("a",)))
    assert isinstance(prompts, LatentPrompts) and prompts.projection.injection is injection


def test_space_of_words_needs_candidates() -> None:
    job = parse_job('[method]\nname = "fed-bbpt"\ngenerator = "categorical"\n[task.prompt]\nkind = "text"\n')
    with pytest.raises(InvalidJob, match="candidates is empty"):
        job.space()


IMAGE_PROMPTS = {
    "image = [3, 32, 32]": "grid 7 and 5 widths make 224 x 224",
    "pooled = 15": "15 does not fit an image of 224 x 224",
    "pooled = 32": "32 does not fit",
    "widths = [32, 48, 32, 32, 16]": "divisor of the next",
}


@pytest.mark.parametrize("line", IMAGE_PROMPTS)
def test_sizes_of_a_decoder_that_do_not_fit_are_rejected_with_their_line(line: str) -> None:
    with pytest.raises(InvalidJob, match=IMAGE_PROMPTS[line]) as raised:
        parse_job(f'[task.prompt]\nkind = "image"\n{line}\n')
    assert raised.value.where == "job:3"


def test_classes_and_a_frequency_mapping_contradict_each_other() -> None:
    text = '[task]\nlabels = ["a", "b"]\nclasses = ["cat", "dog"]\nmapping = "frequency"\n'
    with pytest.raises(InvalidJob, match=r"task\.mapping"):
        parse_job(text)


def test_columns_and_no_prompt_have_a_view_without_a_prompt() -> None:
    assert parse_job('[task]\ncolumns = ["a person"]').task.views == ("",)
    assert parse_job('[task]\ncolumns = ["a person"]\nviews = ["It was"]').task.views == ("It was",)
    assert parse_job("").task.views == ()


def test_general_views_are_written_out() -> None:
    job = parse_job('[task]\nviews = "general"')
    assert job.task.views == GENERAL_VIEWS and GENERAL_VIEWS[0] == ""
    assert parse_job(job_text(job)).task.views == GENERAL_VIEWS
    with pytest.raises(InvalidJob, match=r"job:2: task\.views"):
        parse_job('[task]\nviews = "all"')


def test_the_space_of_a_job_with_columns_has_a_readout() -> None:
    job = parse_job('[task]\nlabels = ["a", "b"]\ncolumns = ["c"]\nviews = ["", "It was"]\n[task.prompt]\ndim = 4')
    space = job.space()
    assert isinstance(space, ReadoutSpace) and space.dim == 4 + 2 * (3 * 3 + 1)
    assert task_spec(job).classes == ("a", "b", "c")
    with pytest.raises(InvalidJob, match="depends on the model"):
        parse_job('[task]\nlabels = ["a", "b"]\ncolumns = "general"').space()


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        (("c", "a"), "task.columns: 'a' is the text of a class, too"),
        (tuple(map(str, range(2000))), "task.columns: 2000 texts besides those of 2 classes"),
    ],
)
def test_columns_beside_classes_from_the_data_are_reported_as_columns(columns: tuple[str, ...], what: str) -> None:
    job = parse_job('[task]\nlabels = ["a", "b"]\n').with_columns(columns)
    with pytest.raises(InvalidJob, match=what):
        task_spec(job)


def test_prompt_in_the_class_texts_leaves_the_texts_whole() -> None:
    space = parse_job("[task.prompt]\nside = 'class'").space()
    prompts = space.prompts(np.zeros((1, space.dim)), Examples(("a",)))
    assert isinstance(prompts, LatentPrompts) and prompts.projection.injection is Injection.CLASS
    assert prompts.in_classes and space.prompt_tokens == 0


def test_place_in_the_texts_contradicts_a_prompt_in_the_class_texts() -> None:
    with pytest.raises(InvalidJob, match="'place' is a place in the texts"):
        parse_job("[task.prompt]\nside = 'class'\ninjection = 'place'")
    with pytest.raises(InvalidJob, match="input should be 'prefix', 'add', 'concat' or 'place'"):
        parse_job("[task.prompt]\ninjection = 'class'")
