"""Text from elsewhere is shown without what a terminal would obey."""

import pytest

from fedbbpt.host.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve ☕ 你好", "plain, naïve ☕ 你好"),
        ("می‌خواهم 👩‍⚕️", "می‌خواهم 👩‍⚕️"),  # joiners belong to the script and to the emoji
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\r\nb\tc\x7f", r"a\r\nb\tc\x7f"),
        ("invoice\u202egpj.exe", r"invoice\u202egpj.exe"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_only_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_ends_can_be_kept() -> None:
    assert printable("a\n\x1bb", keep="\n") == "a\n\\x1bb"
