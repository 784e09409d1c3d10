"""What is in deploy/ fits the program: its commands parse, and its metrics exist."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from fedbbpt import cli
from fedbbpt.ptm.metrics import PtmMetrics
from fedbbpt.server.metrics import families
from fedbbpt.server.runs import Runs

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = [
    (path, manifest)
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for manifest in yaml.safe_load_all(path.read_text())
]
BOARD = json.loads((DEPLOY / "grafana/fedbbpt.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
SUFFIXES = {"counter": ("_total",), "summary": ("_sum", "_count"), "histogram": ("_bucket", "_sum", "_count")}


def parse(words: list[str]) -> None:
    """Parses a command as the command line does, without running it."""
    command: Any = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def published() -> set[str]:
    """Returns the names of all series that Prometheus reads from a coordinator and from a PTM service."""
    ptm = PtmMetrics(queued_tokens=lambda: 0.0, kept_bytes=lambda: 0.0).registry.collect()
    found = [*families(Runs([])), *ptm]
    return {metric.name + suffix for metric in found for suffix in SUFFIXES.get(metric.type, ("",))}


def expressions() -> list[str]:
    panels = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    return [*panels, *(rule["expr"] for rule in RULES)]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_of_panels_and_alerts_exists(expression: str) -> None:
    named = set(re.findall(r"\bfedbbpt_\w+", expression))
    assert named and named <= published()


def test_every_metric_of_runs_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"\bfedbbpt_run_\w+", json.dumps(BOARD)))
    for metric in families(Runs([])):
        assert any(name.startswith(metric.name) for name in shown), metric.name


def test_every_alert_says_what_to_do() -> None:
    assert all(rule["annotations"].keys() == {"summary", "description"} for rule in RULES)
    assert all(rule["labels"]["severity"] in ("page", "ticket") for rule in RULES)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_commands_of_units_parse(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *words = shlex.split(line)
    assert program == "/opt/fedbbpt/bin/fedbbpt"
    parse(words)


def test_commands_of_the_compose_file_parse_and_its_files_are_mounted() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services.keys() == {"coordinator", "ptm", "client"}
    for service in services.values():
        words = shlex.split(service["command"])
        mounted = {volume.split(":")[1] for volume in service["volumes"]}
        assert {word for word in words if word.startswith(("/certificates/", "/config/"))} <= mounted
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        parse(words)


@pytest.mark.parametrize(
    "manifest",
    [found for _, found in MANIFESTS if found["kind"] in ("Deployment", "StatefulSet")],
    ids=lambda found: f"{found['metadata']['name']}-{found['kind']}",
)
def test_pods_have_commands_that_parse_volumes_that_exist_and_no_root(manifest: dict[str, Any]) -> None:
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    parse(list(container["args"]))
    claimed = [claim["metadata"] for claim in manifest["spec"].get("volumeClaimTemplates", [])]
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in [*pod["volumes"], *claimed]}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--port={ports['grpc']}" in container["args"]
    assert container["readinessProbe"]["tcpSocket"]["port"] in ports
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize(("path", "manifest"), MANIFESTS, ids=lambda found: getattr(found, "name", ""))
def test_services_and_budgets_select_the_pods_of_their_file(path: Path, manifest: dict[str, Any]) -> None:
    pods = [
        found["spec"]["template"]["metadata"]["labels"]
        for at, found in MANIFESTS
        if at == path and "template" in found["spec"]
    ]
    selector = manifest["spec"]["selector"]
    assert [selector.get("matchLabels", selector)] == pods


def test_the_image_has_no_root_and_takes_the_extras_that_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER (?!0|root)", text, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["fedbbpt"\]$', text, re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_valid_for_systemd(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/fedbbpt/bin/fedbbpt", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_and_panels_are_valid_for_prometheus(tmp_path: Path) -> None:
    shown = [{"record": f"panel:{index}", "expr": text} for index, text in enumerate(expressions())]
    panels = tmp_path / "panels.yml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": shown}]}))
    command = ["promtool", "check", "rules", str(DEPLOY / "prometheus/alerts.yml"), str(panels)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
