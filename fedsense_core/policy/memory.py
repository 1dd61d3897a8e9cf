"""Main memory of this process: how much there may be, how much it holds, and a limit that the
kernel keeps."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedsense_core.errors import PolicyError

SLACK = 2**30
"""Bytes that the kernel's limit lies above that of the policy: it counts stacks of threads and
reserves of allocators that hold nothing."""
CANNOT_ALLOCATE = ("can't allocate memory", "Cannot allocate memory", "bad_alloc")
"""How torch says that the kernel refused it memory; numpy raises a MemoryError."""


def machine_memory() -> int:
    """Return the bytes that this process may have: the machine's, or its control group's where
    that has less."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return found
    return min(found, int(limit)) if limit.isdigit() else found


def resident_memory() -> int:
    """Return the bytes that this process holds now; 0 where the system does not say."""
    return _pages(1)


@contextmanager
def limited_memory(most: int) -> Iterator[None]:
    """Let the kernel refuse this process more than about ``most`` bytes of data (0 no limit), so
    that one step too large is answered and not killed.

    Raises PolicyError for what could not be allocated. A limit does not fit the GPU's libraries,
    which reserve far more than they use.
    """
    if not most or sys.platform != "linux":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    overhead = max(0, _pages(5) - _pages(1))  # reserved, but not held
    wanted = most + overhead + SLACK
    hard = before[1]
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in CANNOT_ALLOCATE):
            raise
        raise PolicyError(
            f"stopped: it needed more than the {most / 1e9:.1f} GB of memory that its policy allows (limits.memory_gb)"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _pages(field: int) -> int:
    """Return the bytes of one field of ``/proc/self/statm`` (proc(5)): 1 resident, 5 data and
    stack."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[field]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
