"""What ``influence models`` shows and fetches of local models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from influence_cli.api import ModelInfo, reporting_to
from influence_transformers import smollm2
from influence_transformers.options import TransformersOptions
from influence_transformers.resolution import resolve_model


class TransformersCatalog:
    """smollm2, and the chat models in the local Hugging Face cache."""

    def __init__(self, options: TransformersOptions) -> None:
        self._options = options

    def models(self) -> Sequence[ModelInfo]:
        """Return smollm2 and the models with safetensors weights in the Hugging Face cache; loads and asks nothing."""
        found = smollm2.find()
        first = ModelInfo(
            name=f"transformers:{smollm2.NAME}",
            state="ready" if found else "fetchable",
            summary=smollm2.SUMMARY,
            path=str(found) if found else None,
            size_bytes=_size(found) if found else smollm2.MEMBER_BYTES,
        )
        return [first, *_in_hub_cache()]

    def pull(self, name: str, progress: Callable[[str, float], None]) -> Path:
        """Fetch a model and return its folder."""
        with reporting_to(progress):
            return resolve_model(name, self._options.revision)


def _in_hub_cache() -> list[ModelInfo]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    shown = []
    for repo in sorted(repositories, key=lambda r: r.repo_id):
        for revision in repo.revisions:
            names = {f.file_name for f in revision.files}
            if repo.repo_type == "model" and "config.json" in names and any(n.endswith(".safetensors") for n in names):
                shown.append(
                    ModelInfo(
                        name=f"transformers:{repo.repo_id}",
                        state="ready",
                        summary="in the Hugging Face cache",
                        path=str(revision.snapshot_path),
                        size_bytes=revision.size_on_disk,
                    )
                )
                break
    return shown


def _size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
