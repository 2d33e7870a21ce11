"""Large memory pages for what a training step sets aside: a CPU's step frees hundreds of MB at its end and touches them anew in the next.

In pages of 4 KiB each touch of a new one is a fault, some 200,000 of them in a step of 35.6M parameters. The C library asks the kernel for
pages of 2 MiB where GLIBC_TUNABLES says so, which it reads once, when a process begins.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Mapping

TUNABLES, HUGE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
SINCE = (2, 35)  # the glibc that knows HUGE


def begin_again() -> None:
    """Starts this process anew, as it was started, with large pages, where that helps; the process stays the same to all others.

    It does nothing where they are in use or can't be, or where GLIBC_TUNABLES already says what to do about them (hugetlb=0 keeps
    small ones), or where another program runs this one (a server that forks, say). Call it before anything else: what the process did is lost.
    """
    wanted = environment()
    if wanted is None or not sys.executable or not started_alone():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)


def started_alone() -> bool:
    """Whether the process's command line is `python -m MODULE` of the module that runs."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and ("-m", spec.name) in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)


def environment() -> dict[str, str] | None:
    """That of a process like this one with large pages; None where it has them, or can't."""
    try:
        kernel = KERNEL.read_text()
    except OSError:  # another system, or a container that hides it
        return None
    return with_large_pages(os.environ, library(), kernel)


def library() -> str:
    """'glibc 2.36', or '' where the C library is another."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError, AttributeError):  # no such name, or no such function
        return ""


def with_large_pages(environment: Mapping[str, str], library: str, kernel: str) -> dict[str, str] | None:
    """The environment that asks for large pages; None where it would change nothing.

    `library` is the C library's name and version, `kernel` what its file says: large pages for all ('[always] madvise never'), for
    those that ask ('always [madvise] never') or for none.
    """
    name, _, version = library.partition(" ")
    said = environment.get(TUNABLES, "")
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < SINCE or "[madvise]" not in kernel or HUGE in said:
        return None
    return dict(environment) | {TUNABLES: ":".join(filter(None, (said, f"{HUGE}=1")))}
