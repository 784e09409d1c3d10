"""Error messages about TOML files. tests/unit/job and tests/unit/ptm/tenants have more of them, for whole files."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from fedbbpt.errors import InvalidInput, InvalidJob
from fedbbpt.toml.problems import KeyPath, first_problem, line_of, parse_toml
from fedbbpt.toml.section import Section, contradiction


class Inner(Section):
    limit: Annotated[int, Field(ge=2)] | Literal["all"] = "all"
    secret: str = Field("", max_length=3)


class Outer(Section):
    name: str
    inner: Inner = Inner()

    @model_validator(mode="after")
    def _name_fits(self) -> "Outer":
        if self.name == "wrong":
            raise contradiction("inner.limit", "no limit for this name", "all")
        return self


def known_keys(path: KeyPath) -> list[str]:
    sections: dict[KeyPath, type[Section]] = {(): Outer, ("inner",): Inner}
    return list(sections[path].model_fields) if path in sections else []


@pytest.mark.parametrize(
    ("tables", "path", "what", "fix"),
    [
        ("{}", ("name",), "name is missing", "name = ..."),
        ('{"name": "a", "iner": {}}', ("iner",), "unknown key 'iner'", "did you mean 'inner'?"),
        ('{"name": "a", "inner": {"x": 1}}', ("inner", "x"), "unknown key 'inner.x'", "known are limit, secret"),
        ('{"name": "wrong"}', ("inner", "limit"), "inner.limit: no limit for this name", "all"),
        (
            '{"name": "a", "inner": {"limit": 1}}',
            ("inner", "limit"),
            "inner.limit = 1: input should be greater than or equal to 2, or input should be 'all'",
            "",
        ),
        (
            '{"name": "a", "inner": {"secret": "password"}}',
            ("inner", "secret"),
            "inner.secret: string should have at most 3 characters",
            "",
        ),
    ],
)
def test_first_problem_speaks_of_keys_of_the_file(tables: str, path: KeyPath, what: str, fix: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate_json(tables, strict=True)
    problem = first_problem(caught.value, known_keys, secret={"secret"})
    assert (problem.path, problem.what, problem.fix) == (path, what, fix)


def test_line_of_falls_back_to_the_nearest_line_above() -> None:
    text = 'name = "a"\n\n[inner]\nlimit = 3\n'
    lines = [line_of(text, path) for path in (("name",), ("inner", "limit"), ("inner", "secret"), ("other",))]
    assert lines == [1, 4, 3, 1]


def test_parse_toml_names_file_and_line_of_a_syntax_error() -> None:
    with pytest.raises(InvalidJob, match=r"job\.toml:2: not TOML: "):
        parse_toml("a = 1\nb\n", "job.toml", InvalidJob)
    with pytest.raises(InvalidInput, match="not TOML: "):
        parse_toml("a =", "tenants.toml")
