"""What is loaded runs no code that it brings, and what is installed is what was pinned."""

import ast
import re
from functools import cache

import pytest

FORBIDDEN = {
    "pickle.load", "pickle.loads", "torch.load", "joblib.load", "dill.load", "dill.loads", "marshal.loads", "shelve.open",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "shutil.unpack_archive", "np.load", "numpy.load",
    "pandas.read_pickle", "pd.read_pickle", "eval", "exec", "compile",
}  # fmt: skip
LOADERS = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")


@cache
def calls(repository) -> list[tuple[str, str, ast.Call]]:
    """Return file, name and node of every call in the program."""
    return [
        (file.relative_to(repository).as_posix(), ast.unparse(node.func), node)
        for folder in ("src", "plugins")
        for file in sorted((repository / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
    ]


def keywords(node: ast.Call) -> dict[str, str]:
    return {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}


def test_nothing_is_unpickled_evaluated_or_unpacked(repository):
    found = [(file, name) for file, name, _ in calls(repository) if name in FORBIDDEN]
    assert found == []
    assert [(f, n) for f, n, _ in calls(repository) if n.rpartition(".")[2] in ("extract", "extractall")] == []


def test_no_command_goes_through_a_shell(repository):
    assert [file for file, _, node in calls(repository) if keywords(node).get("shell", "False") != "False"] == []
    assert [file for file, name, _ in calls(repository) if "subprocess_shell" in name or name == "os.popen"] == []


def test_the_only_unpickler_knows_no_callable(repository):
    makers = [
        file.relative_to(repository).as_posix()
        for folder in ("src", "plugins")
        for file in (repository / folder).rglob("*.py")
        if re.search(r"\bpickle\.(Unpickler|load)", file.read_text())
    ]
    assert makers == ["src/influence_cli/store/imports/pickles.py"]


def test_code_of_models_runs_only_where_a_person_says_so(repository):
    given = [
        value
        for folder in ("src", "plugins")
        for file in (repository / folder).rglob("*.py")
        for value in re.findall(r"[\"']?trust_remote_code[\"']?\s*[:=]\s*([^,)}\n]+)", file.read_text())
    ]
    assert given
    assert set(given) <= {"options.trust_remote_code", "self.options.trust_remote_code", "bool = Field(default=False"}


def test_options_that_trust_a_models_code_are_off():
    pytest.importorskip("trl")
    from influence_transformers.options import TransformersOptions
    from influence_trl.algorithms import OPTIONS

    assert not TransformersOptions().trust_remote_code
    assert [name for name, options in OPTIONS.items() if options().trust_remote_code] == []


def test_weights_are_read_from_safetensors_only(repository):
    reading = {
        (file, ast.unparse(node)): keywords(node)
        for file, name, node in calls(repository)
        if name in {f"{loader}.from_pretrained" for loader in LOADERS}
    }
    assert reading
    for (file, shown), words in reading.items():
        assert words.get("use_safetensors") == "True" or "gguf_file" in words, (file, shown)


@pytest.mark.parametrize("name", ["constraints.txt", "requirements-hashed.txt"])
def test_every_pin_is_exact(repository, name):
    lines = (repository / name).read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", " ", "-"))]
    assert len(pins) > 50
    assert [line for line in pins if not re.match(r"[A-Za-z0-9_.\[\]-]+==[^=*\s]+", line)] == []


def test_every_pin_of_the_hashed_file_has_hashes_and_is_the_pin_of_the_constraints(repository):
    blocks = re.split(r"\n(?=[A-Za-z0-9])", (repository / "requirements-hashed.txt").read_text())
    hashed = {}
    for block in blocks:
        found = re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", block)
        if found:
            hashed[re.sub(r"[-_.]+", "-", found[1]).lower()] = found[2]
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), found[1]
    constraints = {}
    for line in (repository / "constraints.txt").read_text().splitlines():
        found = re.match(r"([A-Za-z0-9_.-]+)==([^\s;]+)", line)
        if found:
            constraints[re.sub(r"[-_.]+", "-", found[1]).lower()] = found[2]
    assert len(hashed.keys() & constraints.keys()) > 50
    assert {name: version for name, version in hashed.items() if constraints.get(name, version) != version} == {}
