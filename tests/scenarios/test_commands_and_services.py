"""Commands that talk to a service, or would start one: results, errors, exit codes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme

from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.types import Output
from fedbbpt.wire.tls import ServerTls
from tests.command_line import JOB, CommandLine, write_job


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Runs a command in a folder that holds questions.csv and job.toml."""
    write_job(tmp_path)
    return command_line


def test_a_command_shows_its_certificate_to_a_ptm_service(run: CommandLine, ptm_servers: Any, tmp_path: Path) -> None:
    """Kills: tenants that are known by certificates, and no command that shows one."""
    assert run("simulate", "job.toml", "--out", "out").code == 0
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("127.0.0.1", "north.example.org"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    Path("tenants.toml").write_text('[[tenant]]\nname = "north"\ncertificate = "north.example.org"\n')
    tenants = read_tenants(Path("tenants.toml"))
    tls = ServerTls(tmp_path / "127.0.0.1.pem", tmp_path / "127.0.0.1.key", tmp_path / "ca.pem")
    port = ptm_servers.start(Engine(Fake(), lambda: 0.0), tenants=tenants, tls=tls)
    ask = ("--ptm", f"127.0.0.1:{port}", "--ptm-tls-ca", "ca.pem")
    shown = ("--ptm-client-cert", "north.example.org.pem", "--ptm-client-key", "north.example.org.key")
    asked = ("predict", "--prompt", "out/prompt.safetensors", "--text", "my invoice", *ask)
    assert "my invoice" in run(*asked, *shown).out
    half = run(*asked, *shown[:2])
    assert half.code == 3 and "--ptm-client-cert, --ptm-client-key" in half.err


class LossOnly(Tenants):
    """A registry whose only tenant gets losses only."""

    def __init__(self) -> None:
        super().__init__([])

    def identify(self, shown: str | None, certificate_names: Sequence[str]) -> Tenant:
        return Tenant(name="anyone", output=Output.LOSS_ONLY)


def test_a_summary_has_null_for_values_that_a_loss_only_ptm_hides(run: CommandLine, ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), lambda: 0.0), tenants=LossOnly())
    address = f'[ptm]\nsend_labels = true\naddress = "127.0.0.1:{port}"'
    ranks = '[method]\nname = "fed-cma"\nstep = "ranks"\n'  # Newton steps need scores
    Path("job.toml").write_text(JOB.replace("[ptm]", address).replace("[data]", '[data]\npartition = "iid"') + ranks)
    ended = run("simulate", "job.toml", "--out", "out")
    assert ended.code == 0, ended.err
    summary = json.loads(Path("out/summary.json").read_text())
    assert {key for key, value in summary.items() if value is None and "bytes" not in key} == {
        *(
            f"accuracy_{condition}"
            for condition in ("before", "bias_only", "readout_only", "start", "prompt_only", "after")
        ),
        "dev_accuracy",
    }
    assert summary["loss_after"] < summary["loss_before"]
    assert re.search(r"tuned prompt +- *\n", ended.out) and "+" not in ended.out
    assert set(summary["gains"].values()) == {None}
    assert len(re.findall(r"^round \d: dev accuracy -, dev loss \d", ended.err, re.M)) == 4
    asked = ("evaluate", "--prompt", "out/prompt.safetensors", "--data", "questions.csv", "--ptm", f"127.0.0.1:{port}")
    withheld = run(*asked)
    assert withheld.code == 8 and "so it needs every example's label hint: --send-labels-to-ptm" in withheld.message
    ended = run(*asked, "--send-labels-to-ptm")
    assert ended.code == 0 and re.search(r"accuracy +- *\n", ended.out), ended.out


Words: TypeAlias = tuple[str, ...]
REFUSED: dict[str, tuple[Words, int, str]] = {
    "no certificate": (
        ("ptm", "serve", "--model", "fake", "--tls-cert", "c.pem", "--tls-key", "k.pem"),
        3,
        "k.pem: No such file",
    ),
    "unusable certificate": (
        ("ptm", "serve", "--model", "fake", "--tls-cert", "job.toml", "--tls-key", "job.toml"),
        3,
        "job.toml: the file holds no private key",
    ),
    "open to all": (
        ("ptm", "serve", "--model", "fake", "--host", "0.0.0.0"),
        5,
        "0.0.0.0: the server has no TLS, so anybody on the network",
    ),
    "a host of nobody": (("ptm", "serve", "--model", "fake", "--host", "192.0.2.1", "--insecure"), 3, "does not have"),
    "nobody there": (("status", "--coordinator", "127.0.0.1:1"), 4, "127.0.0.1:1: no answer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_command_says_why_it_fails(case: str, run: CommandLine) -> None:
    words, code, message = REFUSED[case]
    ended = run(*words)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.message
    assert "Traceback" not in ended.err
