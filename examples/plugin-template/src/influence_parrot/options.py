"""What ``-o key=value`` can set."""

from pydantic import Field

from influence_cli.api import Frozen


class ParrotOptions(Frozen):
    """Options of the backend ``parrot``."""

    mishears: float = Field(default=0.2, ge=0.0, le=1.0, description="Share of words that come out as another.")
