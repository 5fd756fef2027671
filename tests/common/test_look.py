"""How words and figures are drawn."""

import pytest

from apps.common.templatetags.look import number, prose

HOSTILE = """<script>alert(1)</script> <img src=x onerror=alert(1)>
[click](javascript:alert(1)) ![p](https://evil.example/x.png) <https://evil.example>
[ref][1]

[1]: https://evil.example
"""


def test_prose_draws_what_markdown_says() -> None:
    drawn = prose("It is **done**:\n\n- one\n- two\n\n```\n<b>\n```")

    assert "<strong>done</strong>" in drawn and "<li>one</li>" in drawn
    assert '<pre tabindex="0"><code>&lt;b&gt;' in drawn


def test_prose_makes_no_link_no_picture_and_no_html() -> None:
    drawn = prose(HOSTILE).lower()

    assert not [tag for tag in ("<a", "<img", "<script", "href=") if tag in drawn]
    assert "evil.example" in drawn  # it is still there to be read


def test_prose_shows_a_very_long_text_as_it_is() -> None:
    assert prose("**x** " * 20_000).count("<strong>") == 0


@pytest.mark.parametrize(
    ("value", "said"), [(1048221, "1,048,221"), (None, "0"), (7, "7")]
)
def test_number_has_its_thousands_apart(value: int | None, said: str) -> None:
    assert number(value) == said
