"""What ``-o key=value`` can set."""

from __future__ import annotations

from pydantic import Field

from influence_cli.api import Frozen


class DatasetOptions(Frozen):
    """Options of the export ``datasets``."""

    title: str | None = Field(default=None, description="Of the card; None: the run's name and its environments.")
    license: str | None = Field(default=None, description="As the hub names licences; None: the card names none.")


class AdapterOptions(Frozen):
    """Options of the export ``adapter``."""

    iteration: int | None = Field(
        default=None, ge=1, description="Which adapter; None: the last one, whatever its result."
    )
    base_model: str | None = Field(default=None, description="The base model's name on the hub, where it has another.")
    title: str | None = Field(default=None, description="Of the card; None: the run's name and iteration.")
    license: str | None = Field(default=None, description="As the hub names licences; None: the card names none.")
