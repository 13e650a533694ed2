"""Every command in README and docs is true: what can be run here is run, the rest is read by the parser that users meet.

A block of commands (``console``, ``sh`` or ``bash``) is run line by line, pages from top to bottom, in a folder that holds
what the pages speak of (:func:`stage`), with the scripted model in place of every other and small numbers in place of large
ones. A block that cannot be run here says so in the line before it: ``<!-- not run: key -->``; the reasons are
:data:`REASONS`. Its commands, and those that stand in running text, are parsed all the same. Pages that come later are
taken in by themselves.
"""

import importlib
import re
import shlex
import shutil
import textwrap
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from influence_cli.backends.folders import cache_folder
from influence_cli.cli.app import build_app
from influence_cli.store.labels import LabelRecord, write_label
from influence_cli.store.run_directory import open_run

REPOSITORY = Path(__file__).parents[2]
SHELLS = ("console", "sh", "bash")
REASONS = {"gpu", "key", "cluster", "network", "server", "terminal", "your own files"}
FENCE = re.compile(
    r"(?:^[ ]*<!-- (?:not run: (?P<reason>[^>]*?)|(?P<run>run)) -->\n+)?^(?P<indent>[ ]*)```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
FILES = re.compile(r"^```\w+\n# ([\w-]+\.\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
"""A block whose first line is a comment with a file's name is that file."""
INLINE = re.compile(r"`(influence [^`]+)`")
SCREEN = ({"view", "env play"}, "--export-svg")
"""Commands that take the terminal, unless they have the flag."""
HEAVY = {"plugins doctor"}
"""Commands that load every library there is; their own tests run them."""
MOST = {
    "--n": 4,
    "-n": 4,
    "--count": 2,
    "--iterations": 1,
    "--samples": 2,
    "--turns": 2,
    "--heldout-n": 4,
    "--trials": 2,
}
LEAST = {
    "simulate": ["--turns", "1"],
    "train": "--n 4 --samples 2 --turns 1 --heldout-n 4 --top 1/2 --iterations 1".split(),
    "bench sycophancy": ["--n", "2"],
    "bench toxicity": ["--n", "2", "--samples", "1"],
    "bench transfer": ["--n", "2", "--turns", "1"],
}
"""What is added to a command, so that it is over in a moment; a flag that comes twice counts as the second says."""
MOST_FOR_REAL = {"--n": "2", "--turns": "1"}
CACHE = cache_folder()
EAGER = {"--install-completion", "--show-completion"}
"""Flags that do something as soon as they are read."""
ELSEWHERE = re.compile(r"^(openai|transformers|vllm|inspect|parrot|my-backend):[^=]+$")
LEFT_OUT = ("--base-url",)


IMPORTS = re.compile(r"^from (influence_cli[\w.]*) import \(?([^)\n]*)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    reason: str | None
    commands: tuple[tuple[str, ...], ...]


def pages() -> list[str]:
    """Every page that speaks of the present: the README, the documentation, and READMEs of what is shipped."""
    found = [path for path in REPOSITORY.glob("*.md") if path.name != "CHANGELOG.md"]
    for folder in ("docs", "examples", "environments", "benchmarks"):
        found += (REPOSITORY / folder).rglob("*.md")
    return sorted(str(path.relative_to(REPOSITORY)) for path in found)


def blocks(page: str) -> list[Block]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        if match["language"] in SHELLS:
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match["reason"], tuple(commands(match["body"]))))
    return found


def commands(body: str) -> list[tuple[str, ...]]:
    """The commands of a block, comments and prompts taken off; ``a && b`` are two."""
    found = []
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(tuple(words[:end]))
            words = words[end + 1 :]
    return found


def python_blocks(page: str) -> list[tuple[int, bool, str]]:
    """Line, whether it is run (``<!-- run -->`` stands before it), and code of each block of Python."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("body")), match["run"] is not None, textwrap.dedent(match["body"]))
        for match in FENCE.finditer(text)
        if match["language"] == "python"
    ]


WITH_PYTHON = [page for page in pages() if python_blocks(page)]
WITH_BLOCKS = [page for page in pages() if blocks(page)]
INLINES = sorted({(page, text) for page in pages() for text in INLINE.findall((REPOSITORY / page).read_text())})


@pytest.fixture(scope="module")
def parse():
    """Read a command as the command line does, and return the words that name it; what is wrong with it is raised."""
    whole = typer.main.get_command(build_app())

    def read(words):
        command, rest, context, named = whole, list(words), None, []
        while True:
            context = command.make_context(named[-1] if named else "influence", rest, parent=context)
            if not isinstance(command, TyperGroup):
                return " ".join(named)
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            if name != "run":  # the default command of a group has no name of its own
                named.append(name)

    def checked(words):
        if {*words} & EAGER:
            assert {*words} <= {flag for each in whole.params for flag in each.opts}
            return ""
        try:
            return read(words)
        except typer.Exit:  # --help
            return ""

    return checked


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A folder that holds what the pages speak of, made once."""
    return tmp_path_factory.mktemp("stage")


@pytest.fixture
def stage(staged, place, influence, tiny_folder, monkeypatch):
    """The working directory of a page: runs ``before``, ``after`` and ``my-agent``, tables, labels, the examples."""
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    if not any(staged.iterdir()):
        make_stage(staged, place, influence, tiny_folder)
    shutil.copytree(staged, place, dirs_exist_ok=True)
    (place / "examples").symlink_to(REPOSITORY / "examples")
    return place


def make_stage(staged, place, influence, tiny_folder):
    def made(*arguments):
        answer = influence(*arguments)
        assert answer.code == 0, answer.stderr

    made(
        "train", "--env", tiny_folder, "--algo", "scripted", "--iterations", 1, "--top", "1/2", "--out", "runs/my-agent"
    )
    for seed, name in enumerate(("before", "after")):
        made("simulate", "--env", tiny_folder, "--n", 8, "--seed", seed, "--out", f"runs/{name}")
        made("score", f"runs/{name}", "--with", "computed,harm")
    for kind in ("jsonl", "parquet"):
        made("export", "before", "--to", kind, "--out", f"table.{kind}")
    shutil.copy(place / "table.parquet", place / "their-table.parquet")
    shutil.copy(REPOSITORY / "tests/fixtures/imports/pandas-2.2.3-protocol-5.pkl", place / "table.pkl")
    shutil.copy(REPOSITORY / "tests/fixtures/imports/small-talk.eval", place / "2026-01-31_task.eval")
    (place / "labels.csv").write_text(
        "episode,turn,rubric,label,annotator\n" + "".join(f"{n},,harm,{n},ada\n" for n in range(1, 9))
    )
    after = open_run(place / "runs" / "after")
    for number in range(1, 9):
        write_label(after, LabelRecord(episode_id=number, rubric="harm", value=str(number), author="ada"))
    shutil.copytree(REPOSITORY / "tests/fixtures/published/therapist", place / "therapist")
    for shard in ("shard-1", "shard-2"):
        (place / shard).mkdir()
        shutil.copy(place / "runs" / "after" / "run.db", place / shard / "run.db")
    shutil.copytree(place, staged, dirs_exist_ok=True)


def substituted(words):
    """The command with the scripted model in place of every other, and numbers that are over in a moment."""
    found: list[str] = []
    for word in words:
        before = found[-1] if found else ""
        if before in LEFT_OUT:
            found.pop()
        elif before in MOST and word.isdigit():
            found.append(str(min(int(word), MOST[before])))
        elif before == "--algo":
            found.append("scripted")
        else:
            found.append("scripted:demo" if ELSEWHERE.match(word) else word)
    if not {"--dry-run", "--resume", "--help"} & {*words}:
        found += LEAST.get(words[0], []) + LEAST.get(" ".join(words[:2]), [])
    return found


def check_other(words, page):
    """What is no command of ours: installations name extras that exist, sessions exist; anything else has to be marked."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    if words[:2] == ("pip", "install"):
        for extras in re.findall(r"(?:\.|influence-cli)\[([\w,-]+)\]", " ".join(words)):
            if page.startswith(("README", "docs")) or "influence-cli" in " ".join(words):
                assert set(extras.split(",")) <= set(project["optional-dependencies"]), words
        for flag, file in pairwise(words):
            assert flag != "-c" or (REPOSITORY / file).is_file(), words
    elif words[0] == "nox":
        sessions = re.findall(r"@nox\.session\ndef (\w+)", (REPOSITORY / "noxfile.py").read_text())
        assert set(words[words.index("-s") + 1 :] if "-s" in words else []) <= {*sessions, "--"}, words
    elif words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
        assert (REPOSITORY / words[1]).is_file(), words
    else:
        assert words[0] in ("pytest", "cd", "python3", "export", "."), f"{page}: nothing checks {words}; mark its block"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_every_command_block_runs(page, stage, influence, parse):
    for name, body in FILES.findall((REPOSITORY / page).read_text(encoding="utf-8")):
        (stage / name).write_text(body)
    for block in blocks(page):
        for words in block.commands:
            if words[0] != "influence":
                if block.reason is None:
                    check_other(words, page)
                continue
            named = parse(words[1:])
            commands, flag = SCREEN
            if (
                block.reason is not None
                or named in HEAVY
                or {*words} & EAGER
                or (named in commands and flag not in words)
            ):
                continue
            answer = influence(*substituted(words[1:]), answers="y\n")
            told = f"{page}:{block.line}: {' '.join(words)}\n{answer.stderr}"
            assert answer.code == 0, told


def sweeps(page):
    """The commands of a page that search settings, in its blocks and in running text."""
    of_blocks = [words for block in blocks(page) for words in block.commands]
    inline = [words for text in INLINE.findall((REPOSITORY / page).read_text()) for words in commands(text)]
    return [words[1:] for words in (*of_blocks, *inline) if words[:2] == ("influence", "sweep") and "--search" in words]


@pytest.mark.parametrize("page", ["README.md", "docs/sweeps.md"])
def test_a_sweep_that_is_printed_could_begin(page, place, influence, monkeypatch):
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    assert sweeps(page)
    for words in sweeps(page):
        answer = influence(*words, "--set", "turns=1", "--trials", "9", "--dry-run", "--json")
        told = f"{page}: {' '.join(words)}\n{answer.stderr}"
        assert answer.code == 0, told
        tried = [row["parameters"]["samples"] for row in answer.document["reckoned"]]
        assert ("selection.level" in answer.stderr) == (1 in tried), told


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_is_true_with_the_embedded_model(place, influence, monkeypatch):
    # the model lies in the cache of whoever runs the tests, not in the empty home of this one
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(CACHE))
    short = ["--max-reply-tokens", "12"]
    for block in blocks("docs/tutorial.md"):
        for words in [each[1:] for each in block.commands if each[0] == "influence"]:
            if words[0] in ("view", "doctor"):
                continue
            least = LEAST.get(words[0], []) + (short if words[0] in ("simulate", "train") else [])
            answer = influence(*[MOST_FOR_REAL.get(before, word) for before, word in pairwise(("", *words))], *least)
            assert answer.code == 0, f"{' '.join(words)}\n{answer.stderr}"
    assert (place / "runs" / "trained" / "adapters" / "1" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_every_python_block_compiles_and_imports_what_there_is(page):
    for line, _, code in python_blocks(page):
        compile("\n" * line + code, page, "exec")
        for module, names in IMPORTS.findall(code):
            found = importlib.import_module(module)
            assert [name for name in re.findall(r"\w+", names) if not hasattr(found, name)] == [], f"{page}:{line}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if any(run for _, run, _ in python_blocks(page))])
def test_marked_python_blocks_run_one_after_the_other(page, stage):
    names: dict[str, object] = {}
    for line, run, code in python_blocks(page):
        if run:
            here = re.sub(r'"(?:openai|transformers):[^"]+"', '"scripted:demo"', code)
            exec(compile("\n" * line + here.replace("expert-iteration", "scripted"), page, "exec"), names)


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_a_block_that_is_not_run_gives_a_known_reason(page):
    assert {block.reason for block in blocks(page)} <= {None, *REASONS}


@pytest.mark.parametrize(("page", "text"), INLINES, ids=[f"{page}: {text}" for page, text in INLINES])
def test_every_command_in_running_text_is_one(page, text, parse):
    for words in commands(text.replace("\n", " ").replace("|", " ").replace("...", "")):
        try:
            parse(words[1:])
        except Exception as error:
            told = getattr(error, "format_message", None)
            if told is None:
                raise
            # running text leaves out what it does not speak of
            missing = type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError")
            assert missing, f"{page}: `{text}`: {told()}"


@pytest.mark.parametrize("wrong", ["simulate --no-such-flag", "runs shoe latest", "simulate --n many", "export latest"])
def test_a_command_that_is_none_is_found(parse, wrong):
    with pytest.raises(Exception) as raised:
        parse(wrong.split())
    assert raised.value.format_message()


def test_a_block_may_be_marked_and_holds_several_commands(tmp_path):
    text = "a\n<!-- not run: key -->\n```console\npip install x && influence \\\n  runs list  # all\n```\n```text\nx\n```\n"
    (tmp_path / "page.md").write_text(text)
    (block,) = blocks(tmp_path / "page.md")
    assert (block.reason, block.line) == ("key", 2)
    assert block.commands == (("pip", "install", "x"), ("influence", "runs", "list"))
