"""Past runs: the run folders under a folder, as the page shows and compares them."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fedbbpt.errors import InvalidInput, NotFound, reason
from fedbbpt.federation.run_folder import JOB, METRICS, SUMMARY
from fedbbpt.types import Report
from fedbbpt.web.dashboard.records import Record, best_round, control_records, round_records

DEPTH = 3
"""How deep below the folder its runs may be."""
MAX_RUNS = 500
"""The most runs that the page lists."""
_REPORT = {field.name for field in fields(Report)}


class RunFolders:
    """The runs under a folder, which are read anew for each request, so that new ones appear."""

    def __init__(self, folder: Path) -> None:
        """Raises InvalidInput if there is no such folder."""
        if not folder.is_dir():
            raise InvalidInput("there is no such folder", where=str(folder), fix="a folder with the folders of runs")
        self._folder = folder

    def all(self) -> list[Record]:
        """Returns each run without its rounds, the newest first. One that cannot be read says why."""
        return [_summary(name, path) for name, path in sorted(self._found(), key=_age)]

    def _found(self) -> list[tuple[str, Path]]:
        """Returns the folders with metrics by their names."""
        found = list[tuple[str, Path]]()
        for path in _folders(self._folder, DEPTH):
            if (path / METRICS).is_file():
                found.append((_name(self._folder, path), path))
            if len(found) == MAX_RUNS:
                break
        return found

    def run(self, name: str) -> Record:
        """Returns a run with its rounds, settings and accuracies. Raises NotFound, and InvalidInput if it is broken."""
        path = dict(self._found()).get(name)  # never a path that a request made
        if path is None:
            raise NotFound("no run has this name", where=name, fix="one of the list")
        return _run(name, path)

    def compare(self, first: str, second: str) -> Record:
        """Returns two runs with the settings that differ. Raises what `run` does."""
        runs = [self.run(first), self.run(second)]
        return {"runs": runs, "differences": differences(runs[0]["settings"], runs[1]["settings"])}


def _run(name: str, path: Path) -> Record:
    """Returns the run in a folder. Raises InvalidInput if it is broken."""
    reports, summary = read_reports(path / METRICS), read_summary(path)
    settings = read_settings(path / JOB)
    rounds = round_records(reports)
    last = rounds[-1] if rounds else {}
    return {
        "complete": True,
        "live": False,
        "over": True,
        "problem": None,
        "run": {
            "name": name,
            "run_id": summary.get("run", name),
            "method": summary.get("method") or settings.get("method.name", ""),
            "state": "finished" if summary.get("tested") else summary.get("state", "unfinished"),
            "round": len(reports),
            "rounds": summary.get("rounds") or settings.get("run.rounds", len(reports)),
            "clients": summary.get("clients", 0),
            "queries": last.get("total_queries", 0),
            "bytes_up": last.get("total_bytes_up"),
            "bytes_down": last.get("total_bytes_down"),
            "best_round": summary.get("best_round", best_round(reports)),
            "privacy": _privacy(summary),
            "currency": "",
            "members": None,
            "ptm": summary.get("ptm", settings.get("ptm.model", "")),
        },
        "rounds": rounds,
        "events": [],
        "members": [],
        "left": [],
        "controls": control_records(summary),
        "settings": settings,
    }


def _summary(name: str, path: Path) -> Record:
    """Returns the run in a folder without its rounds. One that cannot be read says why."""
    try:
        found = _run(name, path)
    except InvalidInput as error:
        return {"name": name, "broken": str(error)}
    best: Record = next((one for one in found["rounds"] if one["round"] == found["run"]["best_round"]), {})
    result = next((one for one in found["controls"] if one["key"] == "result"), None)
    return {
        **found["run"],
        "best": {key: best.get(key) for key in ("dev_accuracy", "dev_loss", "dev_examples", "interval_95")},
        "result": result,
        "curve": [one["dev_accuracy"] for one in found["rounds"]],
        "changed": (path / METRICS).stat().st_mtime,
    }


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        try:
            inner = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
        except OSError:
            return
        for each in inner:
            if not each.is_symlink():
                yield from _folders(each, depth - 1)


def _name(folder: Path, path: Path) -> str:
    return path.name or folder.name if path == folder else path.relative_to(folder).as_posix()


def _age(found: tuple[str, Path]) -> tuple[float, str]:
    return -(found[1] / METRICS).stat().st_mtime, found[0]


def read_reports(path: Path) -> list[Report]:
    """Returns the rounds of a metrics file. Raises InvalidInput, naming the line."""
    reports = list[Report]()
    for number, line in enumerate(_text(path).splitlines(), 1):
        try:
            values = json.loads(line)
            reports.append(Report(**{key: value for key, value in values.items() if key in _REPORT}))
        except (ValueError, TypeError, AttributeError):
            fix = "a line as the coordinator writes it"
            raise InvalidInput("not the report of a round", where=f"{path}:{number}", fix=fix) from None
    return reports


def read_summary(folder: Path) -> Mapping[str, Any]:
    """Returns a run's summary; empty if it has none yet. Raises InvalidInput."""
    path = folder / SUMMARY
    if not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput("not a summary", where=str(path), fix="the file as the run wrote it")
    return found


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the keys of a job file with their values, such as `method.name`; empty without a file.

    Raises InvalidInput.
    """
    if not path.exists():
        return {}
    try:
        return dict(_flat(tomllib.loads(_text(path))))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(str(error), where=str(path), fix="a job file in TOML") from None


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            plain = value if isinstance(value, bool | int | float | str | list) else str(value)
            yield f"{prefix}{key}", plain


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Record]:
    """Returns the settings in which two runs differ, by key; None stands for one that is left out."""
    keys = sorted({*first, *second})
    return [
        {"key": key, "first": first.get(key), "second": second.get(key)}
        for key in keys
        if first.get(key) != second.get(key)
    ]


def _privacy(summary: Mapping[str, Any]) -> Record | None:
    stated = summary.get("privacy")
    if not isinstance(stated, dict) or stated.get("epsilon") is None:
        return None
    return {key: stated.get(key) for key in ("level", "epsilon", "delta")}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(reason(error), where=str(path), fix="a file of a run that can be read") from None
