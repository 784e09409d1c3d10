"""Addresses on the command line: every command refuses one that cannot be dialled, before it does anything else."""

from pathlib import Path

import pytest

from tests.command_line import CommandLine, write_job

RAY = ("ptm", "serve", "--model", "fake", "--engine", "ray")
COMMANDS: dict[str, tuple[str, ...]] = {
    "--coordinator of client join": ("client", "join", "--data", "gone.csv", "--coordinator"),
    "--coordinator of owner join": ("owner", "join", "--model", "fake", "--data", "gone.csv", "--coordinator"),
    "--coordinator of status": ("status", "--coordinator"),
    "--coordinator of stop": ("stop", "--coordinator"),
    "--ptm of client join": ("client", "join", "--data", "gone.csv", "--coordinator", "127.0.0.1:1", "--ptm"),
    "--ptm of coordinator serve": ("coordinator", "serve", "job.toml", "--ptm"),
    "--ptm of predict": ("predict", "--prompt", "gone.safetensors", "--text", "a", "--ptm"),
    "--ptm of evaluate": ("evaluate", "--prompt", "gone.safetensors", "--data", "gone.csv", "--ptm"),
    "--ptm of conformance ptm": ("conformance", "ptm", "--ptm"),
    "--host of ptm serve": ("ptm", "serve", "--model", "fake", "--host"),
    "--metrics-host of ptm serve": ("ptm", "serve", "--model", "fake", "--metrics-host"),
    "--ray-address of ptm serve": (
        "ptm",
        "serve",
        "--model",
        "fake",
        "--engine",
        "ray",
        "--port",
        "7",
        "--ray-address",
    ),
    "--host of coordinator serve": ("coordinator", "serve", "job.toml", "--host"),
}


@pytest.fixture
def run(command_line: CommandLine, tmp_path: Path) -> CommandLine:
    """Runs a command in a folder that holds questions.csv and job.toml."""
    write_job(tmp_path)
    return command_line


@pytest.mark.parametrize("address", ["http://127.0.0.1:7000", "127.0.0.1:seven", "127.0.0.1:70000", "a b"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_what_is_no_address(name: str, address: str, run: CommandLine) -> None:
    ended = run(*COMMANDS[name], address)
    assert (ended.code, ended.out) == (3, "")
    assert f"InvalidInput: {name.partition(' ')[0]}: " in ended.message and "hint: " in ended.message


@pytest.mark.parametrize("address", ["", "hub.example.org"])
def test_a_client_refuses_an_address_that_is_empty_or_has_no_port(address: str, run: CommandLine) -> None:
    ended = run("client", "join", "--data", "questions.csv", "--coordinator", address)
    assert ended.code == 3 and "--coordinator: " in ended.message
    assert not Path(".fedbbpt").exists()


def test_the_address_of_a_standby_is_checked_too(run: CommandLine) -> None:
    ended = run("status", "--coordinator", "127.0.0.1:7000,127.0.0.1:seven")
    assert ended.code == 3 and "--coordinator: 'seven'" in ended.message


def test_a_job_refuses_what_is_no_address(run: CommandLine) -> None:
    job = Path("job.toml")
    job.write_text(job.read_text().replace("[ptm]\n", '[ptm]\naddress = "http://127.0.0.1:7001"\n'))
    for command in ("run", "simulate", "data"):
        ended = run(command, "job.toml")
        assert ended.code == 3 and "job.toml:5: ptm.address: 'http://127.0.0.1:7001' is a URL" in ended.message
        assert "hint: 127.0.0.1:7001" in ended.message
