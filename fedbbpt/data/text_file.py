"""The lines of a text file as programs on all systems write it: compressed or not, in any encoding that it declares.

Lines end in LF, CR LF or CR. A byte order mark decides between UTF-8 and UTF-16; without one a file is UTF-8, unless
the user names another encoding. A byte that does not fit is an error and never a wrong letter.
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from fedbbpt.errors import InvalidData
from fedbbpt.limits import MAX_LINE_CHARACTERS

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark. That of UTF-32 begins like that of UTF-16, so it comes first."""

_COMPRESSED = ".gz"
_GZIP = b"\x1f\x8b"

_MAGIC = {
    b"PK\x03\x04": "a ZIP archive, as Excel's .xlsx files are",
    b"\xd0\xcf\x11\xe0": "an old Office document, as .xls files are",
    _GZIP: "compressed with gzip",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet file",
}
"""Files that are not text, by their first bytes."""

_ESCAPED = re.compile("[\udc80-\udcff]")
"""What the error handler "surrogateescape" leaves in place of a byte that does not fit the encoding."""

SAVE_AS = "save the file as UTF-8 (in Excel: CSV UTF-8)"


def lines(path: Path, encoding: str = "") -> Iterator[tuple[int, str]]:
    """Yields numbered lines with their line ends; a byte order mark is removed.

    Raises:
        InvalidData: The file is not text, its compression is damaged, a byte does not fit its encoding, or a line is
            too long.
        OSError: The file cannot be opened or read.
    """
    if not path.name.endswith(_COMPRESSED):
        with path.open("rb") as opened:
            yield from decoded(opened, path.name, encoding)
        return
    try:
        with gzip.open(path) as unpacked:
            yield from decoded(unpacked, path.name, encoding)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        # Their messages are not passed on, because one shows the first bytes of the file.
        with path.open("rb") as opened:
            damage = "it ends too early" if isinstance(error, EOFError) else "it is damaged"
            reason = damage if opened.read(len(_GZIP)) == _GZIP else "it is not a gzip file"
        fix = "a complete .gz file, or the unpacked file"
        raise InvalidData(f"cannot be read: {reason}", where=str(path), fix=fix) from None


def decoded(stream: io.BufferedReader | gzip.GzipFile, name: str, encoding: str = "") -> Iterator[tuple[int, str]]:
    """Yields the numbered lines of a stream of bytes, as `lines` does; `name` is its name in messages."""
    start = stream.peek(4)[:4]
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            raise InvalidData(f"not text, but {kind}", where=name, fix=f"the ending that fits, or {SAVE_AS}")
    chosen = next((known for mark, known in _MARKS.items() if start.startswith(mark)), "")
    chosen = chosen or encoding or "utf-8"
    try:
        # Splits at LF, CR LF and CR, and leaves each in place for the reader of quoted fields.
        text = io.TextIOWrapper(stream, chosen, "surrogateescape", newline="")
    except LookupError:
        fix = "--encoding (in a job: data.encoding) utf-8, utf-16, cp1252, latin-1, gb18030, shift_jis or another"
        raise InvalidData(f"the encoding {encoding!r} is unknown", where=name, fix=fix) from None
    number = 0
    try:
        while line := text.readline(MAX_LINE_CHARACTERS + 1):
            number += 1
            _check(line, f"{name}:{number}", chosen)
            yield number, line
    except UnicodeError:
        # UTF-16 is damaged as a whole: after half a character nothing can be told.
        raise InvalidData(f"damaged {chosen.upper()} after this line", where=f"{name}:{number}", fix=SAVE_AS) from None
    finally:
        text.detach()  # or else it would close the stream, which belongs to the caller


def _check(line: str, where: str, encoding: str) -> None:
    if len(line) > MAX_LINE_CHARACTERS:
        raise InvalidData("the line is too long", where=where, fix=f"at most {MAX_LINE_CHARACTERS} characters")
    if bad := _ESCAPED.search(line):
        byte, column = ord(bad[0]) - 0xDC00, bad.start() + 1
        shown = "UTF-8" if encoding.startswith("utf-8") else encoding
        fix = f"{SAVE_AS}, or name its encoding: --encoding (in a job: data.encoding), on Windows often cp1252"
        raise InvalidData(f"byte {byte:#04x} at character {column} is not {shown}", where=where, fix=fix)
    if "\0" in line:
        what = f"character {line.index(chr(0)) + 1} is a NUL: not a text file, or UTF-16 without a byte order mark"
        raise InvalidData(what, where=where, fix=f"{SAVE_AS}, or --encoding utf-16-le (in a job: data.encoding)")
