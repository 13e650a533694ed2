"""Compiling C with the machine's own compiler, once for each kind of processor.

Concept: what is compiled lies in the program's cache under a name made of all that it depends on: the source, the
settings, the compiler and what this processor can do (a home folder may be shared by machines that differ). Invariants: a
library in the cache is whole: it is made beside its place and renamed; none is loaded from a folder to which others can
write.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from influence_cli.api import cache_folder

_SECONDS = 120
_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC")
_BY_OTHERS = 0o022
"""The bits of a folder's mode that let others write to it."""


class CompileError(Exception):
    """There is no compiler, or it fails; says which."""


def compiled(source: Path, settings: Mapping[str, int]) -> ctypes.CDLL:
    """Return a source file as a library, compiled with ``settings`` as macros if it is not in the cache.

    The headers beside it are part of it. Where the cache cannot be used it is compiled for this process only. Raises
    CompileError.
    """
    compiler = _compiler()
    flags = [*_FLAGS, _native(), *(f"-D{name}={value}" for name, value in sorted(settings.items()))]
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = (*texts, " ".join(flags), _version(compiler), _processor())
    name = f"{source.stem}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:20]}.so"
    try:
        library = _folder(name) / name
        if not library.exists():
            _compile([*compiler, *flags, str(source), "-lm"], library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CompileError(f"a compiled library cannot be made or loaded: {error}") from error


def _folder(name: str) -> Path:
    """Return where a library of this name lies or can be made: the cache, or a folder of this process."""
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return Path(_private().name)
    ours = os.name != "posix" or (status.st_uid in {0, os.getuid()} and not status.st_mode & _BY_OTHERS)
    usable = ours and ((folder / name).exists() or os.access(folder, os.W_OK))
    return folder if usable else Path(_private().name)


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


def _compiler() -> tuple[str, ...]:
    """Return the C compiler and its first arguments: what CC says, else the first of the usual ones that is there."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"], ["gcc"], ["clang"]):
        found = shutil.which(words[0]) if words else None
        if found:
            return found, *words[1:]
    raise CompileError("there is no C compiler: install cc, gcc or clang, or name one in CC")


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
        return f"{sys.platform} {platform.machine()} {platform.processor()}"
    named = ("model name", "flags", "features", "cpu implementer", "cpu part")
    return "|".join(dict.fromkeys(line for line in lines if line.lower().startswith(named)))
