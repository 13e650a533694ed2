"""What this machine has, and whether it works: the checks of ``influence doctor``.

Invariant: nothing here reads more of a variable that may hold a key than whether it is set, and nothing outlives its time
limit: not a driver that hangs, not a server that never answers.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from influence_cli import __version__
from influence_cli.backends.folders import cache_folder
from influence_cli.backends.names import parse_model_name
from influence_cli.backends.reporting import reporting_to
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.facts import is_broken, plugin_facts
from influence_cli.plugins.loading import OWN_DISTRIBUTION
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import MODEL_VARIABLE, one_model
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import GenerateRequest, Sampling
from influence_cli.settings import resolve_settings
from influence_cli.store.run_directory import RUNS

T = TypeVar("T")
_KEYS = {"HF_TOKEN": "gated models of the Hugging Face hub", "WANDB_API_KEY": "the tracker wandb"}
_OF_DEVELOPERS = re.compile(r"extra == .(?:bench|docs|lint|test|types)\b")
_GPU_QUERY = "name,memory.total,memory.used,driver_version"
_GPU_SECONDS = 10.0
_GRACE = 2.0
"""Seconds after which a call that was given up, but does not end, is left alone."""
_ASKING = "influence-doctor"
"""What the thread is called that asks a model."""
_ATTEMPTS = "max_attempts"
"""The option of a backend that says how often a call that failed is made again: here not at all."""
_LITTLE = 1_000_000_000
"""Bytes under which a folder has little room: runs are small, but models and checkpoints are not."""


Part = dict[str, Any]
"""Some keys of the documented object ``influence.doctor/1``."""


def checked_machine(registry: PluginRegistry) -> Iterator[tuple[str, Part]]:
    """Yield what there is by the name of what was looked for, each when it is found."""
    yield "versions", checked_versions()
    yield "accelerators", {"accelerators": checked_gpus()}
    yield "keys", {"keys": checked_keys(registry)}
    components, problems = plugin_facts(registry)
    yield "plugins", {"plugins": {"components": components, "problems": problems}}
    yield "folders", {"folders": checked_folders()}


def broken(document: Part) -> list[str]:
    """Return a line on each thing that does not work and should, of everything that was looked for."""
    plugins = document["plugins"]
    lines = [
        f"{each['kind']} {each['name']}: {each['problem']}. {each['mend'] or ''}".strip()
        for each in plugins["components"]
        if is_broken(each)
    ]
    lines += [f"plugin {each['name']}: {each['problem']}. {each['mend'] or ''}".strip() for each in plugins["problems"]]
    lines += [
        f"{each['folder']} {each['path']}: {each['problem']}. {each['mend']}"
        for each in document["folders"]
        if each["state"] == "broken"
    ]
    lines += [f"model {each['model']}: {each['problem']}" for each in document["models"] if each["state"] == "broken"]
    accelerators = document["accelerators"]
    return [*lines, accelerators["problem"]] if accelerators["state"] == "broken" else lines


def checked_versions() -> dict[str, Any]:
    """Return the versions of this program, Python, the machine, and of every library of ours that is installed."""
    found: dict[str, str | None] = {}
    for requirement in metadata.requires(OWN_DISTRIBUTION) or []:
        if _OF_DEVELOPERS.search(requirement):
            continue
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {
        "influence": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "libraries": dict(sorted(found.items(), key=lambda entry: entry[0].lower())),
    }


def checked_gpus(command: str = "nvidia-smi") -> dict[str, Any]:
    """Return the accelerators that the driver's own program lists, and what is wrong if it cannot."""
    if shutil.which(command) is None:
        return {"state": "none", "gpus": [], "problem": None}
    asked = [command, f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_GPU_SECONDS, check=True)  # noqa: S603
    except subprocess.TimeoutExpired:
        return {"state": "broken", "gpus": [], "problem": f"{command} gave no answer within {_GPU_SECONDS:.0f} s"}
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        return {"state": "broken", "gpus": [], "problem": " ".join(f"{command}: {told}".split())}
    gpus = []
    for line in done.stdout.splitlines():
        name, total, used, driver = (part.strip() for part in line.split(","))
        gpus.append({"name": name, "memory_mib": _number(total), "used_mib": _number(used), "driver": driver})
    return {"state": "ok" if gpus else "none", "gpus": gpus, "problem": None}


def checked_keys(registry: PluginRegistry) -> list[dict[str, Any]]:
    """Return for each variable that may hold a key whether it is set; never what it holds."""
    wanted = dict(_KEYS)
    for offer in registry.offers("backend"):
        field = offer.component.options.model_fields.get("api_key_env")
        if field is not None and isinstance(field.default, str) and field.default:
            wanted[field.default] = f"the backend {offer.component.name}"
    return [
        {"variable": name, "of": purpose, "set": bool(os.environ.get(name, "").strip())}
        for name, purpose in sorted(wanted.items())
    ]


def checked_folders(runs: Path = RUNS) -> list[dict[str, Any]]:
    """Return for the folders that the program writes to: free space, and whether a file can be written there."""
    return [_checked_folder(what, path) for what, path in (("runs", runs), ("cache", cache_folder()))]


def _checked_folder(what: str, path: Path) -> dict[str, Any]:
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    facts: dict[str, Any] = {"folder": what, "path": str(path), "exists": path.is_dir(), "state": "ok"}
    facts |= {"free_bytes": None, "problem": None, "mend": None}
    try:
        facts["free_bytes"] = shutil.disk_usage(there).free
        with tempfile.NamedTemporaryFile(dir=there, prefix=".influence-doctor-") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        mend = "Set INFLUENCE_CACHE_DIR to a folder that can." if what == "cache" else "Go elsewhere, or name --out."
        return {**facts, "state": "broken", "problem": f"cannot be written: {error.strerror}", "mend": mend}
    if facts["free_bytes"] < _LITTLE:
        facts |= {"state": "little", "problem": f"only {facts['free_bytes'] / 1e6:,.0f} MB are free"}
    return facts


# -- models -----------------------------------------------------------------------------------------------------------


def configured_models(names: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Return the models that are asked for: by name, in files of settings, in the variable; each once."""
    found = list(names)
    if files:
        config = resolve_settings(SimulationConfig, files=files)
        found += [each.model for each in (config.default, *config.roles.values()) if each.model]
    own = os.environ.get(MODEL_VARIABLE)
    return list(dict.fromkeys(found + ([own] if own else [])))


def checked_models(
    registry: PluginRegistry,
    names: Sequence[str],
    options: Mapping[str, Any],
    base_url: str | None,
    seconds: float,
    heard: Listener,
) -> Iterator[Part]:
    """Yield of each model whether it answers, as :func:`checked_model` does; ``heard`` hears meanwhile that it is asked."""
    for name in names:
        with heard.progress() as advance, reporting_to(advance):
            advance(f"Asking {name}", 0.0)
            found = checked_model(registry, name, options, base_url, seconds)
        yield found


def checked_model(
    registry: PluginRegistry, name: str, options: Mapping[str, Any], base_url: str | None, seconds: float
) -> Part:
    """Return whether the model ``name`` loads and answers one short call within ``seconds``, and how fast it does.

    A call that fails is not made again, unless ``options`` ask for it.
    """
    facts: dict[str, Any] = {"model": name, "state": "ok", "problem": None, "seconds": None, "tokens": None}
    started = time.monotonic()
    try:
        usage = _within(seconds + _GRACE, lambda: asyncio.run(_asked(registry, name, options, base_url, seconds)))
    except TimeoutError:
        return {**facts, "state": "broken", "problem": f"no answer within {seconds:g} s"}
    except (InfluenceError, CallFailedError) as error:
        return {**facts, "state": "broken", "problem": str(error)}
    except Exception as error:  # noqa: BLE001 - what a backend does wrong is what the doctor looks for
        return {**facts, "state": "broken", "problem": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {**facts, "seconds": round(time.monotonic() - started, 2), "tokens": usage}


async def _asked(
    registry: PluginRegistry, name: str, options: Mapping[str, Any], base_url: str | None, seconds: float
) -> int:
    """Ask one short thing; return the tokens that it took."""
    known = registry.component("backend", parse_model_name(name).backend).options.model_fields
    once = {_ATTEMPTS: 1} if _ATTEMPTS in known else {}
    model = one_model(registry, name, once | {**options}, base_url)
    request = GenerateRequest(
        role="agent",
        messages=(ChatMessage(role="user", content="Say hello."),),
        sampling=Sampling(temperature=0.0, max_tokens=8),
        seed=0,
        adapter=model.name.adapter,
    )
    try:
        answer = await asyncio.wait_for(model.backend.generate(request), seconds)
        return answer.usage.prompt_tokens + answer.usage.completion_tokens
    finally:
        await model.backend.aclose()


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Return what ``work`` returns, or raise what it raises; TimeoutError if it takes longer, whatever it hangs in."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=copy_context().run, args=(run,), name=_ASKING, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError
    return done[0]


def is_stuck() -> bool:
    """Return whether a model that was given up still keeps a thread: the process would wait for it when it ends."""
    return any(thread.name == _ASKING for thread in threading.enumerate())


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
