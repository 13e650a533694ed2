"""Pushing an exported folder to the Hugging Face hub.

Invariant: only folders with a card of ours are pushed, only their own files, and no link is followed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from influence_cli.api import InfluenceError

Kind = Literal["dataset", "model"]
_CARD = "README.md"
_TAG = "influence"
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


@dataclass(frozen=True)
class Push:
    """What is to be pushed where."""

    folder: Path
    repository: str
    kind: Kind
    public: bool
    files: list[str]
    size: int
    endpoint: str


def plan_push(folder: Path, repository: str, *, public: bool) -> Push:
    """Return what would be pushed; InfluenceError where the folder is none of ours or the name is none of the hub's."""
    if not _REPOSITORY.fullmatch(repository):
        raise InfluenceError(f"{repository!r} is no repository.", hint="Write OWNER/NAME.")
    card = folder / _CARD
    if not card.is_file():
        hint = "Write one first: influence export RUN --to datasets (or adapter) --out FOLDER."
        raise InfluenceError(f"{folder} holds no export with a card.", hint=hint)
    facts = _front_matter(card)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    kept = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    hub = _hub()
    return Push(
        folder=folder,
        repository=repository,
        kind="dataset" if "configs" in facts else "model",
        public=public,
        files=[path.relative_to(folder).as_posix() for path in kept],
        size=sum(path.stat().st_size for path in kept),
        endpoint=hub.HfApi().endpoint,
    )


def push_folder(plan: Push, message: str) -> str:
    """Push the folder; return where it is. InfluenceError if the hub refuses or cannot be reached."""
    hub = _hub()
    api = hub.HfApi()
    try:
        api.create_repo(plan.repository, repo_type=plan.kind, private=not plan.public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=plan.repository,
            repo_type=plan.kind,
            folder_path=plan.folder,
            allow_patterns=plan.files,
            commit_message=message,
        )
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        hint = "Check the name, and the key: `hf auth login` or HF_TOKEN."
        raise InfluenceError(f"The hub at {plan.endpoint} did not take it: {said}", hint=hint) from error
    return str(commit.commit_url)


def _front_matter(card: Path) -> dict[str, Any]:
    text = card.read_text(encoding="utf-8")
    _, _, rest = text.partition("---\n")
    facts = yaml.safe_load(rest.partition("\n---")[0]) if text.startswith("---\n") else None
    if not isinstance(facts, dict) or _TAG not in (facts.get("tags") or []):
        raise InfluenceError(
            f"{card} is no card of ours.", hint="Push what `influence export` wrote; `hf upload` pushes anything."
        )
    return facts


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InfluenceError(
            "Pushing needs huggingface_hub, which is not installed.", hint="pip install 'influence-cli[hub]'"
        ) from None
    return huggingface_hub
