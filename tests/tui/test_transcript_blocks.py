"""How a message is split into blocks."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from samovar.tui.widgets.transcript.blocks import MAX_CHARS, Kind, resume, split

SAMPLE = """# Title
A paragraph
over two lines:
- one
- two

  still two
- three

> quoted
> more

| a | b |
|---|---|
| 1 | 2 |

```python
def f():

    return 1
```
after

1. first
   ```sh
   ls

   ```

2. second
---
Setext
---
~~~
open fence
"""

pieces = st.lists(
    st.sampled_from(
        [
            "word ",
            "\n",
            "\n\n",
            "- item\n",
            "1. item\n",
            "  inner\n",
            "```",
            "```py\n",
            "~~~\n",
            "`",
            "``",
            "> q\n",
            "# h\n",
            "---\n",
            "-",
            "|a|b|\n",
            "|-|-|\n",
            "***",
            "  ",
            "    code\n",
            "x" * 300 + " ",
            "row\n" * 60,
            "y" * 5000,
            "\t",
            "=\n",
        ]
    ),
    max_size=40,
).map("".join)


def test_sample() -> None:
    texts = [(block.kind.name, block.language, block.text) for block in split(SAMPLE)]
    assert texts == [
        ("MARKDOWN", "", "# Title"),
        ("MARKDOWN", "", "A paragraph\nover two lines:"),
        ("MARKDOWN", "", "- one\n- two\n\n  still two\n- three"),
        ("MARKDOWN", "", "> quoted\n> more"),
        ("MARKDOWN", "", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("CODE", "python", "def f():\n\n    return 1"),
        ("MARKDOWN", "", "after"),
        ("MARKDOWN", "", "1. first\n   ```sh\n   ls\n\n   ```\n\n2. second"),
        ("MARKDOWN", "", "---"),
        ("MARKDOWN", "", "Setext\n---"),
        ("CODE", "", "open fence"),
    ]


def test_people_type_plain_text() -> None:
    texts = [(block.kind.name, block.text) for block in split("- a\n# b\n\n*c*\n```\nx\n```", markdown=False)]
    assert texts == [("PLAIN", "- a\n# b"), ("PLAIN", "*c*"), ("CODE", "x")]


@settings(max_examples=400, deadline=None)
@given(pieces, st.lists(st.integers(0, 3000), max_size=12), st.booleans())
@example(SAMPLE, list(range(0, len(SAMPLE), 1)), True)
def test_growing_text_splits_like_the_whole(text: str, cuts: list[int], markdown: bool) -> None:
    blocks = split("", markdown=markdown)
    for cut in [*sorted(cuts), len(text)]:
        blocks = resume(text[:cut], blocks, markdown=markdown)
        assert blocks == split(text[:cut], markdown=markdown)


@settings(max_examples=200, deadline=None)
@given(pieces)
def test_nothing_but_blank_lines_and_fences_is_lost(text: str) -> None:
    def essence(string: str) -> str:
        return "".join(c for c in string if not c.isspace() and c not in "`~")

    shown = essence("".join(block.text for block in split(text)))
    if "`" not in text and "~" not in text:
        assert shown == essence(text)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "word " * 200_000,
        "- item and more\n" * 50_000,
        "|a|b|\n|-|-|\n" + "|1|2|\n" * 50_000,
        "```\n" + "x" * 1_000_000,
        "```py\n" + "line\n" * 50_000,
        "1. a\n   ```\n" + "   code\n" * 50_000,
    ],
    ids=["one word", "one line", "list", "table", "line of code", "code", "code in a list"],
)
def test_blocks_are_bounded(text: str) -> None:
    blocks = split(text)
    assert max(len(block.text) for block in blocks) <= 5 * MAX_CHARS + 100
    assert len(blocks) < 1000


def test_long_code_is_one_fence_in_pieces() -> None:
    lines = [line for n in range(100) for line in (f"def f{n}():", "    x = 1", "", "    return x", "")]
    blocks = split("```python\n" + "\n".join(lines) + "\n```\nend")
    assert [block.first for block in blocks] == [True] + [False] * (len(blocks) - 2) + [True]
    code = blocks[:-1]
    assert [block.last for block in code] == [False] * (len(code) - 1) + [True]
    assert all(block.kind is Kind.CODE and block.text.startswith("def ") for block in code)
    assert "\n".join(block.text for block in code) == "\n".join(lines)
