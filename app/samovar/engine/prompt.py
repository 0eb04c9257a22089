"""From messages to token ids: the model's own chat template, and generated tokens kept as generated.

Engine thread; no llama.cpp here, only the tokenizer it is given. Four marks, Unicode noncharacters that no
text holds, travel through the template:

- `BREAK` inside every control-token text that a message contains, so that the template's own control
  tokens are the only ones in the rendered text (a user who types `<|im_end|>` sends text). A reply's thinking
  tags stay as they are, for the template to find: the model itself has written them;
- `BEGIN` and `END` around replies whose token ids are known, so that they are not tokenized again;
- `GROWS` behind a last message that may still grow.
"""

import datetime
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jinja2
import jinja2.sandbox
import msgspec

from samovar.core.chat import ChatMessage, Role, open_reply
from samovar.core.errors import SamovarError
from samovar.core.reasoning import find_tags, opens_thinking
from samovar.engine.backend import Backend
from samovar.kv.index import common_prefix

BREAK: Final = "\ufdd0"
BEGIN: Final = "\ufdd1"
END: Final = "\ufdd2"
GROWS: Final = "\ufdd3"
_MARKS: Final = re.compile(f"[{BREAK}{BEGIN}{END}{GROWS}]")
_REPLY: Final = re.compile(f"{BEGIN}([^{BEGIN}{END}]*){END}")
_CACHED_CHARACTERS: Final = 8_000_000
_TAG_TOKENS: Final = 32  # an opening tag and the space behind it take fewer
_CONTINUATIONS: Final = ("s", " a", "\n", ".", "1")
"""How a message may go on: what all of them leave as it is, most others do too."""
_BEGINNINGS: Final = ("s", "1")
_LAST_CHARACTERS: Final = 100

# A template is foreign code: it may fail in any of these ways.
_TEMPLATE_ERRORS: Final = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template with the strings that end a turn where no control token does. `name` is for people."""

    name: str
    text: str
    stop: tuple[str, ...] = ()


CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_GEMMA: Final = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) }}"
    "{{ '\n' + message['content'] + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def fallback_template(control_tokens: Container[str]) -> Template:
    """What a model without a template of its own gets: ChatML, unless its vocabulary has other turn tokens.

    ChatML that the vocabulary does not know is spelled as text: it costs some twenty tokens a turn, and its
    end is a stop string.
    """
    if "<|im_start|>" in control_tokens:
        return Template("ChatML", CHATML)
    if "<start_of_turn>" in control_tokens and "<end_of_turn>" in control_tokens:
        return Template("Gemma's turn markers", _GEMMA)
    return Template("ChatML", CHATML, ("<|im_end|>", "<|im_start|>"))


class PromptBuilder:
    """Renders and tokenizes prompts of one model.

    `tokenize` gets plain text (no control token is parsed from it), `piece` gives a token's bytes.
    """

    def __init__(
        self,
        *,
        template: str | None,
        tokenize: Callable[[str], list[int]],
        piece: Callable[[int], bytes],
        control_tokens: Mapping[str, int],
        bos: int | None,
        eos: int | None,
        add_bos: bool,
        tokenizer: str,
    ) -> None:
        chosen = fallback_template(control_tokens) if template is None else Template("", template)
        self.stop = chosen.stop
        self.thinking = find_tags(chosen.text)
        """What opens and closes reasoning, as the template has it."""
        self._tokenize = tokenize
        self._control = dict(control_tokens)
        spelled_tags = [tag for tag in self.thinking or () if tag in self._control]
        self._tags = {self._control[tag]: tag.encode() for tag in spelled_tags}
        """Thinking tags that are control tokens: they are part of a reply's text."""
        self._pieces = _Pieces(lambda token: piece(token) or self._tags.get(token, b""))
        self._tokenizer = tokenizer
        self._control_texts = {token: text for text, token in self._control.items()}
        texts = self._control_texts
        self._bos = bos if add_bos else None
        self._variables = {
            "bos_token": texts.get(bos, "") if bos is not None else "",
            "eos_token": texts.get(eos, "") if eos is not None else "",
        }
        # One of a single character could not be told from text: there is no place for a mark inside it.
        spelled = sorted((text for text in self._control if len(text) > 1), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, spelled))
        self._control_pattern = re.compile(alternatives) if alternatives else None
        self._fragments: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._fragment_characters = 0
        try:
            self._template = _environment().from_string(chosen.text)
        except jinja2.TemplateError as error:
            raise SamovarError(
                f"This model's chat template is not valid ({error}). Use another GGUF of the model."
            ) from error

    @classmethod
    def of(cls, backend: Backend) -> "PromptBuilder":
        """One for this backend's model; SamovarError if its template is not valid."""
        traits = backend.traits
        return cls(
            template=traits.template,
            tokenize=backend.tokenize,
            piece=backend.piece,
            control_tokens=traits.control_tokens,
            bos=traits.bos,
            eos=traits.eos,
            add_bos=traits.add_bos,
            tokenizer=traits.tokenizer,
        )

    def build(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """Token ids of the prompt that asks for the next reply; SamovarError if the template refuses.

        A reply in the last place is to be gone on with: see `parts`.
        """
        asking, begun = self.parts(messages)
        return (*asking, *begun)

    def parts(self, messages: Sequence[ChatMessage]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The prompt up to the place of the reply, and what there is of that reply already.

        The template never sees an open reply, so that not a space of it is lost: it stands behind the prompt
        that once asked for it.
        """
        begun = open_reply(messages)
        if begun is None:
            return self._asking(messages), ()
        return self._asking(messages[:-1]), tuple(self._reply_tokens(begun))

    def _asking(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The prompt up to the place of the reply to `messages`, all of which are complete."""
        text, replies = self._rendered(messages)
        return self._tokens_of(text, replies)

    def template_tokens(self) -> tuple[int, int]:
        """Tokens of a prompt besides what its one message says; without a system prompt, and with one."""
        text = "Hi."
        num_own = len(self._tokenize(text))
        asked = ChatMessage(Role.USER, text)
        alone = len(self.build([asked])) - num_own
        try:
            both = len(self.build([ChatMessage(Role.SYSTEM, text), asked])) - 2 * num_own
        except SamovarError:  # some templates refuse a system prompt
            both = alone
        return max(0, alone), max(0, both)

    def stable_prefix(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """The tokens that the prompt begins with, however the last message, which is the user's, goes on.

        A guess where the tokenizer joins in an unusual way: to be compared with the prompt, as all that is
        reused. Of an empty last message it is what stands before its text. SamovarError as from `build`.
        """
        assert messages[-1].role is Role.USER
        text, replies = self._rendered(messages, grows=True)
        head, mark, tail = text.partition(GROWS)
        if not mark or GROWS in tail:
            # The template does not take the text as it is, so it is asked about two ends of it.
            last = messages[-1]
            grown = [
                self._asking([*messages[:-1], msgspec.structs.replace(last, content=last.content + more)])
                for more in ("", " a a")
            ]
            return grown[0][: common_prefix(*grown)]
        fixed, growing = self._split_open(head)
        more = (*_CONTINUATIONS, self._until_control(tail)) if messages[-1].content else _BEGINNINGS
        return (*self._tokens_of(fixed, replies), *self._stable_tokens(growing.replace(BREAK, ""), more))

    def _stable_tokens(self, text: str, continuations: Iterable[str]) -> list[int]:
        """Tokens of `text` that none of the `continuations` changes. They are looked at by its last words."""
        # Not by way of the cache: these texts never come again.
        tokens = self._tokenize(text) if text else []
        end = text[text.rfind(" ", 0, max(0, len(text) - _LAST_CHARACTERS)) + 1 :]
        alone = self._tokenize(end) if end else []
        same = min(common_prefix(alone, self._tokenize(end + more)) for more in continuations)
        return tokens[: max(0, len(tokens) - len(alone) + same)]

    def _split_open(self, head: str) -> tuple[str, str]:
        """Rendered text up to its last control token or known reply, and the text behind that."""
        pos = head.rfind(END) + 1
        if self._control_pattern is not None:
            for found in self._control_pattern.finditer(head, pos):
                pos = found.end()
        return head[:pos], head[pos:]

    def _until_control(self, tail: str) -> str:
        found = self._control_pattern.search(tail) if self._control_pattern is not None else None
        return tail[: found.start()] if found is not None else tail

    def _rendered(
        self, messages: Sequence[ChatMessage], *, grows: bool = False
    ) -> tuple[str, Iterable[ChatMessage]]:
        """The prompt as text, and the replies that are marked in it, in order."""
        known = {i: message for i, message in enumerate(messages) if self._known_tokens(message)}
        text = self._render(messages, known, grows=grows)
        if known and not self._intact(text, messages, known):
            # The template changed a reply (it drops reasoning, say): that reply is tokenized as rendered.
            kept = {
                i: message
                for i, message in known.items()
                if f"{BEGIN}{self._escape_reply(message.content)}{END}" in text
            }
            text = self._render(messages, kept, grows=grows)
            known = kept if self._intact(text, messages, kept) else {}
            if not known:
                text = self._render(messages, known, grows=grows)
        return text, known.values()

    def _tokens_of(self, text: str, known: Iterable[ChatMessage]) -> tuple[int, ...]:
        """Tokens of rendered text, in which the replies `known` are marked."""
        replies = iter(known)
        tokens: list[int] = [] if self._bos is None else [self._bos]
        pos = 0
        for found in _REPLY.finditer(text):
            tokens += self._tokenize_rendered(text[pos : found.start()])
            tokens += self._reply_tokens(next(replies))
            pos = found.end()
        tokens += self._tokenize_rendered(text[pos:])
        if self._bos is not None and tokens[1:2] == [self._bos]:
            del tokens[0]
        return tuple(tokens)

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for in a reply; empty for control tokens but thinking tags."""
        return self._pieces[token]

    def text_of(self, tokens: Sequence[int]) -> str:
        """The text that tokens spell; control tokens spell nothing, unless they are thinking tags."""
        return b"".join(map(self._pieces.__getitem__, tokens)).decode("utf-8", "replace")

    def opens_thinking(self, asking: Sequence[int]) -> bool:
        """Whether a prompt ends in an opening tag, so that the reply begins inside of a thinking part."""
        return self.thinking is not None and opens_thinking(
            self.text_of(asking[-_TAG_TOKENS:]), self.thinking
        )

    def without_thinking(self, asking: Sequence[int]) -> tuple[int, ...]:
        """A prompt that goes on behind its thinking part, for a reply that has to be in a certain form."""
        if self.thinking is None or not self.opens_thinking(asking):
            return tuple(asking)
        return (*asking, *self._tokenize_rendered(f"\n{self.thinking[1]}\n\n"))

    def control_text(self, token: int) -> str:
        """How a control token is written; empty for any other token."""
        return self._control_texts.get(token, "")

    def _known_tokens(self, message: ChatMessage) -> bool:
        return (
            message.role is Role.ASSISTANT
            and bool(message.tokens)
            and message.tokenizer == self._tokenizer
            and message.content.startswith(self.text_of(message.tokens))
        )

    def _reply_tokens(self, message: ChatMessage) -> list[int]:
        """A reply without the end of its turn: as generated, as far as that is known."""
        tokens = message.tokens if self._known_tokens(message) else ()
        rest = message.content[len(self.text_of(tokens)) :]
        return [*tokens, *self._fragment(_MARKS.sub("\ufffd", rest))]

    def _intact(self, text: str, messages: Sequence[ChatMessage], known: Mapping[int, ChatMessage]) -> bool:
        found = _REPLY.findall(text)
        wanted = [self._escape_reply(messages[i].content) for i in known]
        return found == wanted and text.count(BEGIN) == text.count(END) == len(found)

    def _escape(self, text: str) -> str:
        text = _MARKS.sub("\ufffd", text)
        if self._control_pattern is None:
            return text
        return self._control_pattern.sub(lambda found: found[0][:1] + BREAK + found[0][1:], text)

    def _escape_reply(self, text: str) -> str:
        text = self._escape(text)
        for tag in self._tags.values():
            text = text.replace(tag[:1].decode() + BREAK + tag[1:].decode(), tag.decode())
        return text

    def _render(
        self, messages: Sequence[ChatMessage], known: Mapping[int, ChatMessage], *, grows: bool = False
    ) -> str:
        rendered = []
        for i, message in enumerate(messages):
            is_reply = message.role is Role.ASSISTANT
            content = (self._escape_reply if is_reply else self._escape)(message.content)
            if i in known:
                content = f"{BEGIN}{content}{END}"
            if grows and i == len(messages) - 1:
                content += GROWS
            rendered.append({"role": message.role.value, "content": content})
        try:
            return self._apply(rendered)
        except _TEMPLATE_ERRORS as error:
            if len(rendered) > 1 and rendered[0]["role"] == "system" and rendered[1]["role"] == "user":
                # Some templates know no system role: its text then opens the first message.
                first = f"{rendered[0]['content']}\n\n{rendered[1]['content']}"
                try:
                    return self._apply([{"role": "user", "content": first}, *rendered[2:]])
                except _TEMPLATE_ERRORS:
                    pass
            raise SamovarError(
                f"The model's chat template refuses this conversation ({error}). "
                "Start a new chat, or use another model."
            ) from error

    def _apply(self, rendered: list[dict[str, str]]) -> str:
        return self._template.render(
            messages=rendered, add_generation_prompt=True, tools=None, documents=None, **self._variables
        )

    def _tokenize_rendered(self, text: str) -> list[int]:
        """Tokens of rendered text: control tokens by name, everything between them as plain text."""
        if self._control_pattern is None:
            return list(self._fragment(text))
        tokens: list[int] = []
        pos = 0
        for found in self._control_pattern.finditer(text):
            tokens += self._fragment(text[pos : found.start()])
            tokens.append(self._control[found[0]])
            pos = found.end()
        tokens += self._fragment(text[pos:])
        return tokens

    def _fragment(self, text: str) -> tuple[int, ...]:
        """Tokens of plain text; what has been tokenized before is remembered, so only new text costs."""
        if not text:
            return ()
        known = self._fragments.get(text)
        if known is not None:
            self._fragments.move_to_end(text)
            return known
        tokens = tuple(self._tokenize(text.replace(BREAK, "")))
        self._fragments[text] = tokens
        self._fragment_characters += len(text)
        while self._fragment_characters > _CACHED_CHARACTERS:
            dropped, _ = self._fragments.popitem(last=False)
            self._fragment_characters -= len(dropped)
        return tokens


class _Pieces(dict[int, bytes]):
    """Tokens' bytes. Long chats are spelled for every prompt, and to ask the model takes time."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, token: int) -> bytes:
        piece = self[token] = self._read(token)
        return piece


def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: object, indent: int | None = None, **_options: object) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    environment.filters["tojson"] = to_json
    return environment
