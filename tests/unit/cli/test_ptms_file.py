"""The file of PTM services by name: what a name stands for, and which mistakes are told."""

from pathlib import Path

import pytest

from fedbbpt.cli.client import _revision
from fedbbpt.cli.terminal.bundles import PtmAccess
from fedbbpt.errors import InvalidInput

FILE = """\
[clinic]
address = "ptm.example.org:7001"
tls_ca = "ca.pem"
token_file = "clinic.token"
revision = "9f2c"
[bare]
address = "127.0.0.1:7001,127.0.0.1:7002"
[wrong]
adress = "127.0.0.1:7001"
[bad]
address = "no port"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ptms.toml"
    path.write_text(FILE)
    return path


def test_a_name_stands_for_address_files_and_revision_and_options_come_first(file: Path) -> None:
    """Kills: paths relative to the working folder, and an option that a file overrides."""
    found = PtmAccess(ptm="clinic", ptms=file)
    assert (found.ptm, found.revision, found.ptm_tls_ca) == ("ptm.example.org:7001", "9f2c", file.parent / "ca.pem")
    assert found.ptm_token_file == file.parent / "clinic.token" and found.ptm_client_cert is None
    other = Path("/elsewhere/ca.pem")
    assert PtmAccess(ptm="clinic", ptms=file, ptm_tls_ca=other).ptm_tls_ca == other
    bare = PtmAccess(ptm="bare", ptms=file)
    assert (bare.ptm, bare.revision, bare.ptm_tls_ca) == ("127.0.0.1:7001,127.0.0.1:7002", "", None)


def test_the_page_shows_a_file_that_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/guides/members.md").read_text()
    (tmp_path / "ptms.toml").write_text(page.partition("```toml ptms\n")[2].partition("```")[0])
    found = PtmAccess(ptm="clinic", ptms=tmp_path / "ptms.toml")
    assert found.revision and found.tls() is not None


def test_an_address_needs_no_file() -> None:
    assert PtmAccess(ptm="127.0.0.1:7001").ptm == "127.0.0.1:7001"
    assert PtmAccess().ptm == ""


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("north", r"no table \[north\]"),
        ("wrong", r"\[wrong\]: unknown key 'adress'|\[wrong\]: address is missing"),
        ("bad", "no port"),
    ],
)
def test_mistakes_are_told(file: Path, name: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        PtmAccess(ptm=name, ptms=file)
    with pytest.raises(InvalidInput, match=f"'{name}' is no address, and there is no file of services"):
        PtmAccess(ptm=name, ptms=file.parent / "missing.toml")


def test_a_run_cannot_choose_another_revision_than_the_client() -> None:
    assert [_revision(*pair) for pair in (("a", ""), ("", "b"), ("a", "a"), ("", ""))] == ["a", "b", "a", ""]
    with pytest.raises(InvalidInput, match="the run wants revision b of the PTM"):
        _revision("a", "b")
