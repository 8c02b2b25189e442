"""This process's memory: how much it holds, and how to give back what it no longer needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import Final

PAGES: Final = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the kernel does not say."""
    try:
        return int(PAGES.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def release_memory() -> None:
    """Collect what nothing refers to, and let glibc hand its free pages back to the kernel."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
