"""Compiling C with the machine's own compiler, once for each kind of processor.

Concept: what is compiled lies in the program's cache under a name made of all that it depends on: the source, the
settings, the compiler and what this processor can do (a home folder may be shared by machines that differ). Invariant: a
library in the cache is whole: it is made beside its place and renamed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from influence_cli.api import cache_folder

_SECONDS = 120
_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC")


class CompileError(Exception):
    """There is no compiler, or it fails; says which."""


def compiled(source: Path, settings: Mapping[str, int]) -> ctypes.CDLL:
    """Return a source file as a library, compiled with ``settings`` as macros if it is not in the cache.

    Raises CompileError.
    """
    compiler = _compiler()
    flags = [*_FLAGS, _native(), *(f"-D{name}={value}" for name, value in sorted(settings.items()))]
    text = source.read_bytes()
    parts = (text.decode(), " ".join(flags), _version(compiler), _processor())
    name = f"{source.stem}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:20]}.so"
    try:
        folder = cache_folder() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            _compile([compiler, *flags, str(source), "-lm"], folder / name)
        return ctypes.CDLL(str(folder / name))
    except OSError as error:
        raise CompileError(f"a compiled library cannot be kept or loaded: {error}") from error


def _compile(command: list[str], target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as made:
        library = Path(made) / target.name
        try:
            done = _run([*command, "-o", str(library)])
        except subprocess.TimeoutExpired as error:
            raise CompileError(f"{command[0]} took more than {_SECONDS} s") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if " error: " in line] or done.stderr.splitlines()
            raise CompileError(f"{command[0]} fails: {lines[0] if lines else f'exit code {done.returncode}'}")
        library.replace(target)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 - the user's compiler


def _compiler() -> str:
    """Return the C compiler: what CC names, else the first of the usual ones that is there."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise CompileError("there is no C compiler (cc, gcc or clang)")


@cache
def _version(compiler: str) -> str:
    try:
        done = _run([compiler, "--version"])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{compiler} cannot be run: {error}") from error
    return compiler + done.stdout


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
