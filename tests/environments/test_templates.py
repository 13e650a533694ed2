"""Templates are bounded, and name what they need before they are rendered."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.environments.templates import TemplateProblem, compile_template
from influence_cli.errors import InfluenceError


def references(source: str) -> set[str]:
    return {str(reference) for reference in compile_template(source).references}


def test_references_are_known_before_rendering():
    source = "{{ a }} {% if b %}{{ profile.age }}{% endif %}{% for x in c %}{{ x.name }}{{ loop.index }}{% endfor %}"
    assert references(source) == {"a", "b", "profile.age", "c"}


def test_text_without_variables_is_itself():
    assert compile_template("50 % { fine }").render({}) == "50 % { fine }"


def test_values_are_never_rendered_as_templates():
    assert compile_template("{{ a }}").render({"a": "{{ b }}"}) == "{{ b }}"


def test_an_undefined_variable_does_not_render():
    with pytest.raises(InfluenceError, match="cannot be rendered"):
        compile_template("{{ a }}").render({})


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for a in b %}{% for c in d %}x{% endfor %}{% endfor %}",
        "{% for a in b recursive %}x{% endfor %}",
        "{% for a in 'x' ~ 'y' %}x{% endfor %}",
        "{{ ''.__class__ }}",
        "{{ a.__class__ }}",
        "{{ a['__class__'].b }}",
        "{{ a[b] }}",
        "{{ 'a' * 10**9 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ a|attr('b') }}",
        "{{ a|center(10000000) }}",
        "{{ a() }}",
        "{% set x = a %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{{ a is divisibleby 2 }}",
        "{{ " + "(" * 5000 + "a" + ")" * 5000 + " }}",
        "{{ a",
        "{% if a %}",
    ],
)
def test_what_could_run_long_or_reach_python_is_refused_at_once(source):
    started = time.process_time()
    with pytest.raises(TemplateProblem):
        compile_template(source)
    assert time.process_time() - started < 1.0


@given(st.text("{}%# abcfor.in|()'[]", max_size=60))
def test_any_source_compiles_or_is_a_problem(source):
    try:
        compile_template(source)
    except TemplateProblem as problem:
        assert problem.message
