"""The names of a site's clients outlive the relay."""

from pathlib import Path

import pytest

from fedbbpt.errors import ClientIdTaken, InvalidInput
from fedbbpt.federation.assemble import hello
from fedbbpt.federation.relay.names import SiteNames


def test_a_name_belongs_to_its_key_after_a_restart_until_it_is_freed(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    SiteNames(file).take(hello("anna", "her key", 5))
    again = SiteNames(file)
    again.take(hello("anna", "her key", 5))
    with pytest.raises(ClientIdTaken, match="`fedbbpt members remove anna`"):
        again.take(hello("anna", "another key", 5))
    assert "her key" not in file.read_text() and file.stat().st_mode & 0o077 == 0
    assert again.free("anna") and not again.free("anna")
    SiteNames(file).take(hello("anna", "another key", 5))


def test_damaged_names_are_refused_in_place_of_being_free(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text("{")
    with pytest.raises(InvalidInput, match="not the names of a site"):
        SiteNames(tmp_path / "names.json")
