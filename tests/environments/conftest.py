"""Folders of environments in the published project's form, and documents broken at random."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

SMALL = {"histories": {"0": [{"role": "environment", "content": "Hello there."}]}}
"""The content of a file of the smallest scenario."""


def folder_of(path: Path, master, files) -> Path:
    """Write an environment of these settings and files into ``path`` and return it."""
    path.mkdir(parents=True)
    (path / "_master_config.yaml").write_text(master if isinstance(master, str) else yaml.safe_dump(master))
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        text = (
            content
            if isinstance(content, bytes)
            else (content if isinstance(content, str) else json.dumps(content)).encode()
        )
        (path / name).write_bytes(text)
    return path


@pytest.fixture(scope="module")
def published(repository):
    return repository / "tests" / "fixtures" / "published"


def broken(draw, value, odd):
    """Return a document with one place dropped, renamed or given something ``odd``, as drawn."""
    value = copy.deepcopy(value)
    where = draw(st.sampled_from([place for place in _places(value) if place]))
    parent = value
    for key in where[:-1]:
        parent = parent[key]
    kind = draw(st.sampled_from(["drop", "odd", "rename"]))
    if kind == "odd":
        parent[where[-1]] = draw(odd)
        return value
    dropped = parent.pop(where[-1])
    if kind == "rename" and isinstance(parent, dict):
        parent[draw(st.text(max_size=6))] = dropped
    return value


def _places(value, here=()):
    yield here
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from _places(each, (*here, key))
