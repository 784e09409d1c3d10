"""The C library's memory allocator."""

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The names of glibc's parameters for `mallopt`, in malloc.h."""
_KEPT_BYTES = 2**26
_BLOCK_BYTES = 2**25
"""The largest that glibc accepts."""


@cache
def keep_freed_memory() -> None:
    """Lets this process use freed memory again, up to 64 MiB, in place of returning it to the kernel.

    glibc takes blocks of 128 KiB and more from the kernel for each use, which then clears their pages. A stream of
    large messages spends more time on that than on the messages. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
