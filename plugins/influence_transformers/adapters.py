"""LoRA weights by request.

Concept: an adapter's layers are put into the loaded model when it is first asked for and switched on or off before each
pass, so that many adapters share one copy of the base model. Invariant: with no adapter switched on, the model computes
exactly what it did before any was loaded.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from influence_cli.api import CallFailedError
from influence_transformers.packing import PACKED

_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_BESIDE_WEIGHTS = {"gaussian", "orthogonal", "eva"}
"""Kinds of LoRA, as PEFT names how they began, that are added to what the model's own weights give."""


class Adapters:
    """The adapters of one loaded model; used by one thread."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._names: dict[str, str] = {}
        self._layers: list[Any] = []
        self._active: str | None = None

    def load(self, path: str | None) -> str | None:
        """Return the key of the adapter in folder ``path``, loaded if need be; None for no adapter.

        Raises CallFailedError where the folder is no adapter, or one of another base model.
        """
        if path is None:
            return None
        key = str(Path(path).expanduser().resolve())
        if key not in self._names:
            self._names[key] = self._inject(Path(key), f"a{len(self._names)}")
        return key

    def switch(self, key: str | None) -> None:
        """Make the model compute with one adapter, or with none."""
        if key == self._active:
            return
        for layer in self._layers:
            if key is None:
                layer.enable_adapters(enabled=False)
            else:
                layer.enable_adapters(enabled=True)
                name = self._names[key]
                layer.set_adapter([name] if name in layer.lora_A or name in layer.lora_embedding_A else [])
        self._model.requires_grad_(requires_grad=False)
        self._active = key

    def _inject(self, folder: Path, name: str) -> str:
        from peft import LoraConfig, PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
        from peft.tuners.tuners_utils import BaseTunerLayer
        from safetensors.torch import load_file

        if not (folder / "adapter_config.json").is_file() or not (folder / _WEIGHTS).is_file():
            raise CallFailedError(
                "not_found",
                f"{folder} is no adapter: it needs adapter_config.json and {_WEIGHTS}. Name a folder that PEFT saved.",
                attempts=0,
            )
        config = PeftConfig.from_pretrained(str(folder))
        if not isinstance(config, LoraConfig):
            raise CallFailedError(
                "invalid_request",
                f"The adapter {folder} is {config.peft_type}, not LoRA. Use a LoRA adapter.",
                attempts=0,
            )
        weights = load_file(folder / _WEIGHTS, device="cpu")
        self._check_kind(folder, config)
        self._check(folder, config, {k: tuple(v.shape) for k, v in weights.items()})
        self.switch(None)
        config.inference_mode = True
        with warnings.catch_warnings():
            # Several adapters in one model are what is wanted here.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            inject_adapter_in_model(config, self._model, adapter_name=name)
        set_peft_model_state_dict(self._model, weights, adapter_name=name)
        self._model.eval()  # PEFT's new layers begin in training mode, in which they drop values at random
        self._layers = [m for m in self._model.modules() if isinstance(m, BaseTunerLayer)]
        self._active = ""
        self.switch(None)
        return name

    def _check_kind(self, folder: Path, config: Any) -> None:
        """Raise CallFailedError for an adapter that is computed from the model's weights, if those are packed."""
        kind = "DoRA" if config.use_dora else config.init_lora_weights
        needs_weights = isinstance(kind, str) and kind not in _BESIDE_WEIGHTS
        if needs_weights and any(isinstance(module, PACKED) for module in self._model.modules()):
            raise CallFailedError(
                "invalid_request",
                f"The adapter {folder} uses {kind}, which changes the model's weights. Merge it into the model with PEFT "
                "and name the result.",
                attempts=0,
            )

    def _check(self, folder: Path, config: Any, shapes: dict[str, tuple[int, ...]]) -> None:
        """Raise CallFailedError unless every weight has its place in the model."""
        for key, shape in shapes.items():
            owner = key.removeprefix(_PREFIX).partition(".lora_")[0]
            try:
                module = self._model.get_submodule(owner)
            except AttributeError:
                module = None
            module = getattr(module, "base_layer", module)
            weight = getattr(module, "weight", None)
            if weight is not None and ".lora_A." in key and shape[1] == weight.shape[1]:
                continue
            if weight is not None and ".lora_B." in key and shape[0] == weight.shape[0]:
                continue
            if weight is not None and ".lora_A." not in key and ".lora_B." not in key:
                continue
            base = config.base_model_name_or_path or "an unnamed model"
            raise CallFailedError(
                "invalid_request",
                f"The adapter {folder} does not fit this model (at {owner}). It was trained on {base}: name that model.",
                attempts=0,
            )
