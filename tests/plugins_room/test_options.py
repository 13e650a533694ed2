"""``-o key=value`` is validated by the component's own model, and a mistake is told with its mend."""

import pytest
from pydantic import Field, field_validator

from influence_cli.errors import InfluenceError
from influence_cli.plugins.component import Component
from influence_cli.plugins.options import validate_options
from influence_cli.schemas.frozen import Frozen


class Inner(Frozen):
    size: int = 1


class Options(Frozen):
    address: str
    latency: float = Field(default=0.0, ge=0.0)
    inner: Inner = Inner()

    @field_validator("address")
    @classmethod
    def _short(cls, value):
        if len(value) > 5:
            raise ValueError("it is too long.")
        return value


COMPONENT = Component(name="mine", summary="", load=lambda: print, options=Options)


def told(**values):
    with pytest.raises(InfluenceError) as raised:
        validate_options(COMPONENT, values)
    return str(raised.value)


def test_valid_options_become_the_model():
    assert validate_options(COMPONENT, {"address": "here", "latency": 2}) == Options(address="here", latency=2.0)


def test_an_unknown_option_is_told_the_nearest():
    assert told(address="a", latencyy=1) == "-o latencyy: mine has no such option. Did you mean 'latency'?"


def test_an_option_like_nothing_is_told_where_to_look():
    assert told(address="a", zzz=1) == "-o zzz: mine has no such option. See `influence plugins show mine`."


def test_a_missing_option_is_named():
    assert told() == "mine needs the option 'address'. Add -o address=..."


def test_a_bad_value_is_told_with_its_option():
    assert told(address="a", latency=-1).startswith("-o latency: Input should be greater than or equal to 0. See ")
    assert told(address="a", inner={"size": "x"}).startswith("-o inner.size: Input should be a valid integer")


def test_a_validators_own_words_end_in_one_full_stop():
    assert told(address="much too long") == "-o address: it is too long. See `influence plugins show mine`."
