"""Text from elsewhere, made safe to show: a terminal obeys control characters, and so may whoever sends them."""

import unicodedata

_OBEYED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of Unicode that a terminal obeys or cannot show: controls, halves of characters, ends of lines."""
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text around them, so that it reads as other text."""


def printable(text: str, *, keep: str = "") -> str:
    """Returns the text with everything escaped that a terminal would obey, such as \\x1b; `keep` stays as it is."""
    if text.isprintable():
        return text
    return "".join(each if each in keep or not _is_obeyed(each) else ascii(each)[1:-1] for each in text)


def _is_obeyed(character: str) -> bool:
    return unicodedata.category(character) in _OBEYED or character in _BIDIRECTIONAL
