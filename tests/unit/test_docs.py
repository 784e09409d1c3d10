"""The documentation agrees with the code: commands parse, snippets are valid, tables and test vectors are right."""

import ast
import base64
import hashlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from google.protobuf import descriptor_pool, json_format, message_factory

from fedbbpt import cli, errors, seeds
from fedbbpt.cli.terminal.console import EXIT_CODES
from fedbbpt.cli.terminal.signals import INTERRUPTED, TERMINATED
from fedbbpt.codecs.travelling import unit
from fedbbpt.job.config import Job, parse_job
from fedbbpt.job.job_file import job_text
from fedbbpt.job.recommended import recommended
from fedbbpt.methods import METHODS, SETTINGS
from fedbbpt.methods.fed_cma import FedCmaSettings, candidates
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.types import LatentPrompts, LatentSpaceSettings, Orders, Report
from fedbbpt.v1 import coordinator_pb2
from fedbbpt.v1.coordinator_pb2 import Measurement
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.messages.coordinator_messages import run_settings
from fedbbpt.wire.status import code_of
from fedbbpt.wire.tensors import Assembler, from_message

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()


def fences(page: Path) -> Iterator[tuple[str, str]]:
    """Yields the info string and the content of each code block of a page."""
    for found in re.finditer(r"^```([^\n]+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        yield found[1], found[2]


def blocks(info: str) -> list[Any]:
    return [
        pytest.param(content, id=f"{page.name}-{index}")
        for page in PAGES
        for index, (kind, content) in enumerate(fences(page))
        if kind == info
    ]


def console_commands() -> list[str]:
    return [
        line.removeprefix("$ ")
        for page in PAGES
        for kind, content in fences(page)
        if kind == "console"
        for line in re.sub(r"\\\n>?\s*", "", content).splitlines()
        if line.startswith("$ ")
    ]


def table(text: str, first_header: str) -> dict[str, list[str]]:
    """Returns the rows of the first table with this first header: the other cells by the first cell."""
    lines = text[text.index(f"| {first_header} |") :].splitlines()
    rows = (line.strip("|").split("|") for line in lines[2 : next(i for i, x in enumerate(lines) if not x)])
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def parse_command(words: list[str]) -> None:
    """Parses a command as the command line does, without running it."""
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


@pytest.mark.parametrize("line", [line for line in console_commands() if line.startswith("fedbbpt ")])
def test_every_shown_command_parses(line: str) -> None:
    parse_command(shlex.split(line)[1:])


def test_a_wrong_command_does_not_parse() -> None:
    with pytest.raises(Exception, match="--nonsense"):
        parse_command(["run", "job.toml", "--nonsense"])


def test_every_named_option_exists() -> None:
    known: set[str] = set()
    pending: list[Any] = [typer.main.get_command(cli.app)]
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        known |= {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", COMMANDS))
    assert named <= known | {"--help"}


def test_every_shown_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {line.split()[1] for line in console_commands() if line.startswith("make ")}
    assert {"demo", "test"} <= shown <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_existing_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_blocks_are_valid_jobs(text: str) -> None:
    parse_job(text)


@pytest.mark.parametrize("text", blocks("toml tenants"))
def test_toml_blocks_of_tenants_are_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    assert all(tenant.name for tenant in read_tenants(path))


@pytest.mark.parametrize("text", [content for page in PAGES for kind, content in fences(page) if kind == "json"])
def test_json_blocks_are_examples(text: str) -> None:
    assert all(json.loads(line).keys() == {"text", "label"} for line in text.splitlines())


@pytest.mark.parametrize("method", METHODS)
def test_the_page_of_the_job_file_equals_the_output_of_init(method: str) -> None:
    text, page = job_text(recommended(method)), (ROOT / "docs/job.md").read_text()
    part = text[text.index("[method]") :].partition("\n\n")[0]
    assert (text.strip() if method == "fed-cma" else part) in page


def test_fields_of_a_report_are_documented() -> None:
    documented = table(COMMANDS[COMMANDS.index("A line of `metrics.jsonl`") :], "key")
    assert {name.strip("`") for name in documented} == set(Report.__dataclass_fields__)


def test_exit_codes_are_documented() -> None:
    documented = {int(code) for code in table(COMMANDS, "code")}
    assert documented == {0, 1, 2, INTERRUPTED, TERMINATED, *EXIT_CODES.values()}


def test_families_are_documented_with_their_architectures() -> None:
    families = pytest.importorskip("fedbbpt.ptm.models.families", exc_type=ImportError)
    rows = table((ROOT / "docs/models.md").read_text(), "family")
    told = {ending: name.strip("`") for name, cells in rows.items() for ending in re.findall(r"`(\w+)`", cells[0])}
    assert told == families.ARCHITECTURE_SUFFIXES and set(told.values()) == set(families.FAMILIES)


def test_picture_of_the_packages_matches_the_import_layers() -> None:
    drawing = runpy.run_path(str(ROOT / "docs/draw_packages.py"))
    assert drawing["PICTURE"].read_text() == drawing["draw"](), "run python docs/draw_packages.py"


# The protocol's page


def vectors() -> dict[str, str]:
    return {call.strip("`"): cells[0] for call, cells in table(PROTOCOL, "call").items()}


@pytest.mark.parametrize("call", vectors())
def test_draws_equal_the_test_vectors(call: str) -> None:
    parsed = ast.parse(call, mode="eval").body
    assert isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name)
    arguments, given = [ast.literal_eval(argument) for argument in parsed.args], vectors()[call]
    match parsed.func.id:
        case "stream":
            stream = hashlib.shake_256(arguments[0].to_bytes(8, "little")).hexdigest(16)
            assert given == f"{stream} ..."
        case "derive":
            assert int(given) == seeds.derive(*arguments)
        case "signs":
            assert [int(sign) for sign in given.split()] == seeds.signs(*arguments).tolist()
        case "uniforms":
            assert [float(number) for number in given.split()] == seeds.uniforms(*arguments).tolist()
        case name:
            assert name == "normals"
            # The logarithm and the cosine may differ in their last bit between machines.
            assert [float(x) for x in given.split()] == pytest.approx(seeds.normals(*arguments), rel=1e-14)


def test_errors_have_the_documented_codes() -> None:
    rows = re.findall(r"^\| ([A-Z_]+)[^|]* \| ([\w, ]+) \|", PROTOCOL, re.MULTILINE)
    assert len(rows) > 10
    for code, reasons in rows:
        for reason in re.findall(r"[A-Z]\w+", reasons):
            assert code_of(getattr(errors, reason)("")).name == code, reason
    told = {reason for _, reasons in rows for reason in re.findall(r"[A-Z]\w+", reasons)}
    leaves = {c.__name__ for c in vars(errors).values() if isinstance(c, type) and not c.__subclasses__()}
    elsewhere = {"InvalidJob", "InvalidData", "NoResultYet", "OutputWithheld", "AuditBroken"}
    elsewhere |= {"PortTaken", "InsecureAddress", "InvalidPlugin", "NotPrivate", "PluginMissing", "TlsFailed"}
    elsewhere |= {"LabelsWithheld", "PtmNotAccepted"}
    unavailable = {name for name in leaves if code_of(getattr(errors, name)("")).name == "UNAVAILABLE"}
    assert leaves - elsewhere - unavailable <= told


def test_fields_of_a_measurement_are_documented() -> None:
    fields = {field.name for field in Measurement.DESCRIPTOR.fields}
    assert {name.strip("`") for name in table(PROTOCOL, "field")} == fields


SPACE = Job().space()
READOUT = ReadoutSpace(NoPrompt(), ("",), 0, 3, 5)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "fed-cma"},
        {"name": "fed-cma", "step": "ranks"},
        {"name": "fed-cma", "step": "ranks", "covariance": "full"},
        {"name": "fed-bpt"},
        {"name": "fed-bpt", "uplink": "ranks", "local_covariance": "identity", "norm_limit": 15.0},
        {"name": "fed-bbpt"},
        {"name": "fed-sp"},
        {"name": "fedavg-bbt"},
        {"name": "fed-readout"},
    ],
    ids=str,
)
def test_arrays_of_the_methods_are_documented(config: dict[str, Any]) -> None:
    method = METHODS[config["name"]]
    parsed = method.config.model_validate(config)
    space = READOUT if config["name"] == "fed-readout" else SPACE
    server = method.server(parsed, space)
    numbers = {**parsed.model_dump(), "n": space.dim, "1": 1}
    sizes = {"P": numbers.get("population"), "I": numbers.get("local_iterations"), "n": space.dim, "1": 1}
    sizes |= {"R": len(parsed.readout.ridges), "K": READOUT.classes, "C": READOUT.width, "w": READOUT.width + 1, "2": 2}
    mixed = int(numbers.get("population") or 0) + SPACE.offsets
    sizes |= {"Q": mixed, "H": mixed * (mixed + 1) // 2}
    sizes["mu"] = int(numbers.get("local_population", 0)) // 2
    if config["name"] == "fed-bbpt":
        sizes["s"] = parsed.model_dump()["hidden"] * (parsed.model_dump()["code"] + 1)
        sizes["s"] += SPACE.dim * (parsed.model_dump()["hidden"] + 1)

    def read(cell: str) -> dict[str, tuple[int | None, ...]]:
        found = re.findall(r"`(\w+)` \[([^\]]+)\]", cell)
        return {name: tuple(sizes[symbol] for symbol in shape.split(", ")) for name, shape in found}

    down, up, weight, _ = table(PROTOCOL, "method")[config["name"]]
    expected = server.expected(server.init(0))
    shapes = {name: (form.rows, form.places) if isinstance(form, Orders) else form for name, form in expected.items()}
    assert shapes in [read(part) for part in up.split(", or ")]
    broadcast = server.broadcast(server.init(0), 0)
    assert {name: array.shape for name, array in broadcast.items()} in [read(part) for part in down.split(", or ")]
    assert {array.dtype for name, array in broadcast.items() if name != "readouts"} == {np.dtype("float32")}
    assert (weight == "1") == (config["name"] == "fed-bpt")


def messages() -> list[tuple[str, Any]]:
    found = []
    for kind, content in fences(ROOT / "docs/protocol.md"):
        language, _, name = kind.partition(" ")
        if language == "json" and not name.startswith("vectors/"):
            described = descriptor_pool.Default().FindMessageTypeByName(name)
            found.append(
                (name.rpartition(".")[2], json_format.Parse(content, message_factory.GetMessageClass(described)()))
            )
    return found


def test_the_documented_messages_make_up_a_round() -> None:
    shown = messages()
    by_name = {name: message for name, message in shown if name != "TakePartResponse"}
    header, acknowledged = (message for name, message in shown if name == "TakePartResponse")
    settings = run_settings(by_name["JoinResponse"], SETTINGS)
    assert isinstance(settings.method, FedCmaSettings)

    arrays = Assembler(header.task.arrays, settings.max_update_bytes).arrays()
    assert {name: array.tolist() for name, array in arrays.items()} == {"mean": [0, 0], "scale": [1, 1]}
    drawn = candidates(arrays, header.task.seed, settings.method)

    request = by_name["ScoreRequest"]
    assert from_message(request.latent.z, where="z").tolist() == drawn.tolist()
    prompts = ptm_messages.prompts(request)
    assert isinstance(prompts, LatentPrompts) and isinstance(settings.space, LatentSpaceSettings)
    assert prompts.projection == settings.space.projection
    printed = table(PROTOCOL, "candidate").values()
    assert [[np.float32(cell) for cell in row] for row in printed] == drawn.tolist()

    assert acknowledged.receipt == coordinator_pb2.RECEIPT_COUNTED
    sent = by_name["TakePartRequest"].update
    losses, weight, measured = Assembler(sent.arrays, 16).arrays()["losses"], sent.weight, sent.measurement
    assert (losses * unit(weight) / weight).tolist() == [1.5, 1.25, 1, 0.75]
    assert {field.name for field, _ in measured.ListFields()} == {f.name for f in measured.DESCRIPTOR.fields}
    assert measured.queries == weight * len(drawn) + measured.dev_examples
    assert weight == by_name["JoinRequest"].examples
    assert base64.b64decode("AAAAAAAAAAAAAIA/AACAPw==") == b"".join(a.tobytes() for a in arrays.values())


def test_decisions_are_numbered_and_have_context_choice_and_cost() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text()
        assert text.startswith(f"# {page.name[:4]}. ")
        assert all(f"**{part}.**" in text for part in ("Context", "Choice", "Cost"))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_lines_of_prose_stay_within_120_characters(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))] == []
