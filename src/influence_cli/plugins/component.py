"""What a plugin offers: a name, and how to load what stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Component(Generic[T_co]):
    """One backend, environment, exporter, ... that a plugin offers.

    ``load`` returns the class or factory behind the name and is where heavy imports happen, never before. ``options``
    is the pydantic model that validates and documents its ``-o key=value`` settings; instances are made as
    ``load()(..., options)``. ``requires`` lists import names that must be installed, and ``extra`` the requirement
    whose installation mends a missing one (``influence-cli[local]``). ``free`` says of a backend that its answers cost
    nothing, as where they are computed on one's own machine.
    """

    name: str
    summary: str
    load: Callable[[], Callable[..., T_co]]
    options: type[BaseModel]
    requires: tuple[str, ...] = ()
    extra: str | None = None
    free: bool = False


AnyComponent = Component[Any]
