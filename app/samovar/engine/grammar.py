"""What a request's reply has to look like: its JSON schema or grammar, checked, as one grammar.

Engine thread; the backend turns a schema into a grammar. Nothing here trusts what it is given: it comes from
a file that a user wrote, or over HTTP.
"""

import json
from collections.abc import Iterator
from typing import Final

from samovar.core.errors import SamovarError
from samovar.core.request import Request
from samovar.engine.backend import Backend
from samovar.engine.gbnf import MAX_BYTES, check_grammar

MAX_DEPTH: Final = 32
MAX_LENGTH: Final = 500
_LENGTHS: Final = ("minLength", "maxLength", "minItems", "maxItems")


def grammar_of(request: Request, backend: Backend) -> str:
    """The grammar that a reply must follow, empty if it is free; SamovarError if it cannot be followed."""
    if not (request.json_schema or request.grammar):
        return ""
    if request.json_schema and request.grammar:
        raise SamovarError("A request can have a JSON schema or a grammar, not both. Leave one of them out.")
    grammar = request.grammar
    if request.json_schema:
        check_schema(request.json_schema)
        grammar = backend.schema_grammar(request.json_schema)
    check_grammar(grammar)
    backend.check_grammar(grammar)
    return grammar


def schema_error(why: str) -> SamovarError:
    """The error of a schema that cannot be used."""
    return SamovarError(f"The JSON schema cannot be used: {why}.")


def check_schema(text: str) -> None:
    """SamovarError if a JSON schema is none, or asks for more than a grammar of sensible size can say."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise schema_error(f"it is longer than {MAX_BYTES // 1024} KiB")
    try:
        schema = json.loads(text)
    except RecursionError:
        raise schema_error("it is nested too deeply") from None
    except ValueError as error:
        raise schema_error(f"it is not JSON ({error})") from error
    if not isinstance(schema, dict):
        raise schema_error('it must be an object, as in {"type": "object"}')
    for value in _objects(schema):
        _check_object(value)


def _objects(schema: dict[str, object]) -> Iterator[dict[str, object]]:
    """All objects in a schema, whatever they stand for."""
    todo: list[tuple[object, int]] = [(schema, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise schema_error(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            yield value
            todo += [(child, depth + 1) for child in value.values()]
        elif isinstance(value, list):
            todo += [(child, depth + 1) for child in value]


def _check_object(value: dict[str, object]) -> None:
    if "" in value:
        raise schema_error("a property has no name")
    if isinstance(value.get("pattern"), str):
        raise schema_error("`pattern` is not supported; use a grammar instead")
    reference = value.get("$ref")
    if isinstance(reference, str) and not reference.startswith("#/"):
        raise schema_error(f"{reference} refers to something outside of it")
    for name in _LENGTHS:
        length = value.get(name)
        if isinstance(length, int | float) and not (isinstance(length, int) and 0 <= length <= MAX_LENGTH):
            raise schema_error(f"`{name}` must be a whole number from 0 to {MAX_LENGTH}")
    for least, most in (("minLength", "maxLength"), ("minItems", "maxItems")):
        low, high = value.get(least), value.get(most)
        if isinstance(low, int) and isinstance(high, int) and low > high:
            raise schema_error(f"`{least}` is larger than `{most}`")
