"""Folders of environments in the published project's form: those among the fixtures, and small ones written by a test."""

import json
from pathlib import Path

import pytest
import yaml

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
