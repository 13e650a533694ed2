"""Compiling when first needed: what is kept, for whom, and what comes of a compiler or a cache that fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

from influence_transformers.native.compiling import CompileError, compiled  # noqa: E402

SOURCE = "int twice(int x) { return 2 * x + MORE; }\n"


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "twice.c"
    source.write_text(SOURCE)
    return source


def kept(source: Path) -> set[str]:
    return {path.name for path in folder(source).iterdir()}


def folder(source: Path) -> Path:
    return source.parent / "cache" / f"compiled-{os.getuid()}"


def test_what_is_compiled_is_kept_for_its_source_and_settings(source, monkeypatch):
    assert compiled(source, {"MORE": 1}).twice(4) == 9
    first = kept(source)
    assert len(first) == 1
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.run", lambda *_, **__: pytest.fail("compiled again"))
        assert compiled(source, {"MORE": 1}).twice(5) == 11
    assert compiled(source, {"MORE": 2}).twice(4) == 10
    source.write_text(SOURCE.replace("2 *", "3 *"))
    assert compiled(source, {"MORE": 1}).twice(4) == 13
    assert len(kept(source)) == 3
    assert first < kept(source)


def test_another_processor_has_a_library_of_its_own(source, monkeypatch):
    compiled(source, {"MORE": 1})
    monkeypatch.setattr("influence_transformers.native.compiling._processor", lambda: "flags: fewer")
    compiled(source, {"MORE": 1})
    assert len(kept(source)) == 2


def test_an_error_in_the_source_is_named(source):
    source.write_text("int twice(int x) { return y; }\n")
    with pytest.raises(CompileError, match="fails.*error.*y"):
        compiled(source, {})
    assert kept(source) == set()


@pytest.mark.parametrize("how", ["below-a-file", "open-to-others"])
def test_a_cache_that_cannot_be_used_is_not(source, monkeypatch, how):
    """It is compiled for this process only; what others may have put into the cache is not loaded."""
    if how == "below-a-file":
        monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(source / "below"))
    else:
        compiled(source, {"MORE": 1})
        (library,) = folder(source).iterdir()
        other = source.parent / "other"
        other.write_bytes(b"of somebody else")
        other.replace(library)
        library.parent.chmod(0o777)
    assert compiled(source, {"MORE": 1}).twice(4) == 9
    assert how == "below-a-file" or library.read_bytes() == b"of somebody else"


def test_a_damaged_library_is_made_anew(source):
    compiled(source, {"MORE": 1})
    (library,) = folder(source).iterdir()
    empty = source.parent / "empty"
    empty.write_bytes(b"")
    empty.replace(library)
    # what this process has loaded is found by its name, whatever has become of the file
    code = "import sys; from pathlib import Path; from influence_transformers.native.compiling import compiled; "
    code += "print(compiled(Path(sys.argv[1]), {'MORE': 1}).twice(4))"
    told = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True)
    assert told.stdout == "9\n"
    assert library.stat().st_size > 0


def test_a_header_is_part_of_its_source(source):
    (source.parent / "more.h").write_text("#define MORE 1\n")
    source.write_text('#include "more.h"\n' + SOURCE)
    assert compiled(source, {}).twice(4) == 9
    (source.parent / "more.h").write_text("#define MORE 2\n")
    assert compiled(source, {}).twice(4) == 10


def test_a_compiler_may_be_named_with_arguments(source, monkeypatch):
    monkeypatch.setenv("CC", f"{shutil.which('env')} cc -DMORE=7")
    assert compiled(source, {}).twice(1) == 9
