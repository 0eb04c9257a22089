"""The side tasks that come with Samovar. Values only.

Their instructions are short: what stands behind the cached chat is processed each time, with the end of the
turn before and the beginning of the answer about 40 tokens at most. They do not speak of JSON, whose form the
schema sees to: small models only begin to write about it.
"""

from typing import Final

from samovar.tasks.spec import Output, Scope, TaskSpec, When

_TITLE_SCHEMA: Final = (
    '{"type":"object","properties":{"title":{"type":"string","minLength":2,"maxLength":60}},'
    '"required":["title"],"additionalProperties":false}'
)
_TAGS_SCHEMA: Final = (
    '{"type":"object","properties":{"tags":{"type":"array","minItems":2,"maxItems":4,'
    '"items":{"type":"string","minLength":2,"maxLength":24}}},'
    '"required":["tags"],"additionalProperties":false}'
)
_REPLIES_SCHEMA: Final = (
    '{"type":"object","properties":{"replies":{"type":"array","minItems":3,"maxItems":3,'
    '"items":{"type":"string","minLength":2,"maxLength":120}}},'
    '"required":["replies"],"additionalProperties":false}'
)

TITLE: Final = TaskSpec(
    "title",
    "Write a title for this chat in two to six words.",
    help="give this chat a title that fits it",
    output=Output.TITLE,
    when=When.FIRST_REPLY,
    max_tokens=48,
    timeout_s=120.0,
    json_schema=_TITLE_SCHEMA,
)
SUMMARY: Final = TaskSpec(
    "summary",
    "Summarize our conversation so far in a few short sentences.",
    help="sum up this chat",
    max_tokens=256,
)
KEYWORDS: Final = TaskSpec(
    "keywords",
    "List three keywords of this chat.",
    help="find keywords and add them to the tags",
    output=Output.TAGS,
    max_tokens=96,
    timeout_s=120.0,
    json_schema=_TAGS_SCHEMA,
)
SUGGEST: Final = TaskSpec(
    "suggest",
    "Write three short questions that I could ask you next.",
    help="suggest what you could write next",
    output=Output.COMPOSER,
    max_tokens=160,
    temperature=0.7,
    timeout_s=120.0,
    json_schema=_REPLIES_SCHEMA,
)
ASIDE: Final = TaskSpec(
    "aside",
    "$input",
    help="ask about this chat without changing it",
    max_tokens=512,
    needs_input="QUESTION",
)
TRANSLATE: Final = TaskSpec(
    "translate",
    "Translate $subject into $input. Write only the translation.",
    help="translate a message, or the last reply",
    scope=Scope.MESSAGE,
    max_tokens=1024,
    needs_input="LANGUAGE",
    default_input="English",
)
EXPLAIN: Final = TaskSpec(
    "explain",
    "Explain $subject in simple words.",
    help="explain a message, or the last reply",
    scope=Scope.MESSAGE,
    max_tokens=512,
)

BUILTIN: Final = (TITLE, SUMMARY, KEYWORDS, SUGGEST, ASIDE, TRANSLATE, EXPLAIN)
