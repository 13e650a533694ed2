"""Compiling C with the machine's own compiler, once for each kind of processor.

Concept: what is compiled lies in the program's cache under a name made of all that it depends on: the source, the
settings, the compiler and what this processor can do (a home folder may be shared by machines that differ). Invariants: a
library in the cache is whole: it is made beside its place and renamed; none is loaded from a folder to which others can
write.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from influence_cli.api import cache_folder

_log = logging.getLogger(__name__)
_SECONDS = 120
_FLAGS = ("-O3", "-fno-fast-math", "-std=gnu11", "-shared", "-fPIC")
_ALIKE = "--param=avoid-fma-max-bits=0"
"""For some processors gcc takes products and sums apart in some loops and not in others, and a row's bits with them."""
_BY_OTHERS = 0o022
"""The bits of a folder's mode that let others write to it."""


class CompileError(Exception):
    """There is no compiler, or it fails; says which."""


def compiled(source: Path, settings: Mapping[str, int]) -> ctypes.CDLL:
    """Return a source file as a library, compiled with ``settings`` as macros if it is not in the cache.

    The headers beside it are part of it. Where the cache cannot be used it is compiled for this process only. Raises
    CompileError: what the first compiler says, if none that is there can do it.
    """
    failed: CompileError | None = None
    for compiler in _compilers():
        for more in ((_native(), _ALIKE), (_native(),), ()):
            try:
                return _compiled(
                    compiler, (*_FLAGS, *more, *(f"-D{n}={v}" for n, v in sorted(settings.items()))), source
                )
            except CompileError as error:
                failed = failed or error
    raise failed or CompileError("there is no C compiler: install cc, gcc or clang, or name one in CC")


def _compiled(compiler: tuple[str, ...], flags: tuple[str, ...], source: Path) -> ctypes.CDLL:
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = (*texts, " ".join(flags), _version(compiler), _processor())
    name = f"{source.stem}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:20]}.so"
    command = [*compiler, *flags, str(source), "-lm"]
    folder = _folder(name)
    try:
        for place in (folder, folder, Path(_private().name)):
            library = place / name
            if not library.exists():
                _compile(command, library)
            with contextlib.suppress(OSError):  # damaged, or a folder that nothing may be run from
                return ctypes.CDLL(str(library))
            library.unlink(missing_ok=True)
    except OSError as error:
        raise CompileError(f"a compiled library cannot be made: {error}") from error
    raise CompileError(f"what {compiler[0]} makes cannot be loaded")


def _folder(name: str) -> Path:
    """Return where a library of this name lies or can be made: the cache, or a folder of this process."""
    folder = cache_folder() / f"compiled-{os.getuid() if os.name == 'posix' else 'here'}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        _log.info("The kernels are compiled for this process only: %s", error)
        return Path(_private().name)
    ours = os.name != "posix" or (status.st_uid in {0, os.getuid()} and not status.st_mode & _BY_OTHERS)
    if ours and ((folder / name).exists() or os.access(folder, os.W_OK)):
        return folder
    _log.info("The kernels are compiled for this process only: %s is not for us alone", folder)
    return Path(_private().name)


@cache
def _private() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is removed when this process ends."""
    return tempfile.TemporaryDirectory(prefix="influence-", ignore_cleanup_errors=True)


def _compile(command: Sequence[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as made:
        library = Path(made) / target.name
        done = _run([*command, "-o", str(library)])
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if " error: " in line] or done.stderr.splitlines()
            raise CompileError(f"{command[0]} fails: {lines[0] if lines else f'exit code {done.returncode}'}")
        library.replace(target)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - the user's compiler
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(f"{command[0]} took more than {_SECONDS} s") from error
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error.strerror or error}") from error


def _compilers() -> Iterator[tuple[str, ...]]:
    """Yield the C compilers that are there, each with its first arguments: what CC says, then the usual ones."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise CompileError(f"CC cannot be read: {error}") from error
    for words in (named, ["cc"], ["gcc"], ["clang"]):
        found = shutil.which(words[0]) if words else None
        if found:
            yield found, *words[1:]


@cache
def _version(compiler: tuple[str, ...]) -> str:
    return " ".join(compiler) + _run([*compiler, "--version"]).stdout


def _native() -> str:
    """Return the option that lets a compiler use all that this processor can do."""
    return "-march=native" if platform.machine().lower() in {"x86_64", "amd64", "i686"} else "-mcpu=native"


@cache
def _processor() -> str:
    """Return what this processor can do, as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        told = _run(["sysctl", "-n", "machdep.cpu.brand_string"]).stdout if sys.platform == "darwin" else ""
        return f"{platform.platform()} {platform.processor()} {told}"
    named = ("model name", "flags", "features", "cpu implementer", "cpu part")
    return "|".join(dict.fromkeys(line for line in lines if line.lower().startswith(named)))
