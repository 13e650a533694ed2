"""The page: self-contained, harmless whatever models said, readable without colours, without eyes, on paper."""

import html.parser
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from influence_cli.report import charts
from influence_cli.report.charts import Series
from influence_cli.report.document import report_document
from influence_cli.report.markdown import _examples, report_markdown
from influence_cli.report.pages import report_page
from influence_cli.sanitize import visible

from .conftest import add

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202eevil\x1b[31m {{ 7*7 }} </dd></style> & | ` ](javascript:x)"
VOID = {"meta", "link", "br", "img"}


class Reader(html.parser.HTMLParser):
    """Collect tags, identifiers and texts; every tag must be closed where it should be."""

    def __init__(self):
        super().__init__()
        self.tags, self.ids, self.open, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)
        self.ids.extend(value for name, value in attrs if name == "id")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)
        self.ids.extend(value for name, value in attrs if name == "id")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture
def page(trained, catalogue):
    return report_page(report_document([trained], catalogue))


def test_the_page_is_sound_and_identifiers_are_unique(page):
    reader = parsed(page)
    assert sorted(set(reader.ids)) == sorted(reader.ids)
    references = {
        value[1:] for name, value in reader.attributes if name in ("href", "xlink:href") and value.startswith("#")
    }
    references |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert references <= set(reader.ids)


def test_nothing_is_fetched_and_nothing_runs(page):
    reader = parsed(page)
    assert not {"script", "iframe", "object", "embed", "base", "form", "img"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    addresses = [value for name, value in reader.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("#", "data:,")) for value in addresses)
    assert "Content-Security-Policy" in page
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert len(page.encode()) < 5_000_000


def test_every_figure_says_in_words_what_it_shows(page):
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) >= 8
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)  # also: it is well-formed
        assert root.get("role") == "img"
        title, told = (next(root.iter(f"{{http://www.w3.org/2000/svg}}{name}")) for name in ("title", "desc"))
        assert root.get("aria-labelledby").split() == [title.get("id"), told.get("id")]
        assert re.search(r"\d\.\d\d", told.text), "the words hold the figures"
        assert "<text" in drawing, "text stays text"
        assert not re.search(r"#0102[0-9a-f]{2}", drawing), "every colour is the page's own"


def test_the_sections_are_there(page):
    for title in ("By iteration", "From the first iteration to the last", "Targeting gap", "Held-out less training",
                  "By population", "By cue", "By scenario", "Ratings", "Preference shift", "How many conversations",
                  "What failed", "Calls, tokens and cost", "Examples", "Runs and method"):  # fmt: skip
        assert title in page, title
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def hostile_document(make_run, catalogue):
    directory = make_run("hostile")
    with directory.writer() as writer:
        for state in range(6):
            add(writer, state, HOSTILE, "none", 5.0 + state / 3, scenario=HOSTILE, text=HOSTILE)
        for state in range(6):
            add(writer, state, "calm", "none", 4.0, scenario=f"s{state}", text="_" * 9_000)
    document = report_document([directory], catalogue)
    document["runs"][0]["label"] = HOSTILE
    for rows in ("estimates", "contrasts", "examples", "power", "rating_distributions", "preference_shift"):
        for row in document[rows]:
            row["run"] = HOSTILE
    return document


def test_hostile_text_is_shown_and_does_nothing(make_run, catalogue):
    page = report_page(hostile_document(make_run, catalogue))
    reader = parsed(page)
    assert not {"script", "img"} & set(reader.tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "<202E>evil" in page.replace("&lt;", "<").replace("&gt;", ">")
    assert "{{ 7*7 }}" in page
    assert "5,000 more characters" in page


def test_hostile_text_in_markdown(make_run, catalogue):
    text = report_markdown(hostile_document(make_run, catalogue))
    assert "<script>" not in text.replace("\\<", "")
    assert re.search(r"(?<!\\)\]\(javascript", text) is None
    assert "\u202e" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) >= 4


SAID = st.one_of(
    st.text("-+=:#>*_`~|[]()<>&!.12x$w/\\ \n\t", max_size=30),
    st.lists(
        st.sampled_from(
            [
                "Title",
                "---",
                "===",
                "- a",
                "+ a",
                "1. a",
                "2) a",
                "    code",
                "\tcode",
                ":-:",
                "| a | b |",
                "~~~",
                "a  ",
                "",
            ]
        ),
        max_size=6,
    ).map("\n".join),
)


@given(SAID)
def test_markdown_shows_what_was_said_and_nothing_else(text):
    example = dict.fromkeys(("run", "measure", "environment", "scenario", "initial_state"), "x")
    message = {"speaker": "agent", "text": text, "left_out": 0}
    shown = list(
        _examples({"examples": [{**example, "quantile": 0.5, "value": 1.0, "iteration": 0, "messages": [message]}]})
    )
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse("\n".join(shown))
    assert {token.tag for token in tokens} == {"h3", "p", "blockquote", ""}
    quoted = [token for token in tokens if token.type == "inline"][2:]
    assert {part.type for token in quoted for part in token.children} <= {
        "text",
        "softbreak",
        "strong_open",
        "strong_close",
    }
    told = "\n".join("".join(part.content or "\n" * (part.tag == "br") for part in token.children) for token in quoted)
    assert words(told.replace("\xa0", " ")) == words(f"agent: {visible(text)}")


def words(text: str) -> list[str]:
    """The lines of a text, without the blanks around them, which this parser does not keep."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def test_markdown_has_no_bare_address_and_says_how_much_is_left_out(make_run, catalogue):
    directory = make_run("long")
    with directory.writer() as writer:
        for state in range(6):
            add(writer, state, "calm", "none", 4.0, text="http://a.example WWW.b.example " + "x" * 9_000)
    text = report_markdown(report_document([directory], catalogue))
    assert re.search(r"https?://|www\.", text, re.IGNORECASE) is None
    assert "*(5,031 more characters)*" in text


def test_markdown_holds_the_figures(trained, catalogue):
    document = report_document([trained], catalogue)
    text = report_markdown(document)
    reward = next(row for row in document["estimates"] if row["measure"] == "reward" and row["by"] == "all")
    assert f"| {reward['value']:.2f} |" in text
    assert "## Targeting gap" in text
    assert text.count("### ") == 3


def test_the_same_document_gives_the_same_page(trained, catalogue):
    document = report_document([trained], catalogue)
    assert report_page(document) == report_page(document)


def test_a_plain_simulation_needs_no_iterations(make_run, catalogue):
    directory = make_run("plain")
    with directory.writer() as writer:
        for state in range(12):
            add(writer, state, ("gameable", "resilient")[state % 2], "none", 5.0 + state / 4, scenario=f"s{state % 6}")
    page = report_page(report_document([directory], catalogue))
    parsed(page)
    assert 'id="iterations"' in page
    assert 'id="fig-line0' not in page


def test_a_table_of_very_many_rows_is_cut_and_says_so(trained, catalogue):
    document = report_document([trained], catalogue)
    (row, *_) = [row for row in document["estimates"] if row["by"] == "scenario" and row["iteration"] == 1]
    document["estimates"] += [{**row, "group": f"tiny/more-{n}"} for n in range(5_000)]
    page = report_page(document)
    assert "2,000 of 5,0" in page
    assert len(page.encode()) < 5_000_000
    parsed(page)


def test_figures_without_matplotlib_are_told(trained, catalogue, monkeypatch):
    import sys

    from influence_cli.errors import InfluenceError

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InfluenceError, match="matplotlib"):
        report_page(report_document([trained], catalogue))


def test_points_of_one_group_do_not_cover_each_other():
    both = [Series(name, index, [0, 1], [1.0, 2.0], [0.5, None], [1.5, None]) for index, name in enumerate("ab")]
    assert charts._offset(both, 0, 0) == -charts._offset(both, 1, 0) != 0.0
    apart = [Series("a", 0, [0], [1.0], [None], [None]), Series("b", 1, [1], [1.0], [None], [None])]
    assert charts._offset(apart, 0, 0) == charts._offset(apart, 1, 1) == 0.0
    chart = charts.points("x", "A title", ["left & right", "b"], both, (0.0, 3.0), zero=True)
    assert "left &amp; right 1.00" in chart.svg
