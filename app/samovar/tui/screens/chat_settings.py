"""The settings of one chat: what it is called, what the model is told first, how its replies are made.

Is given values and ends with values; keeps personas by a function it is given. An empty line means: as
configured, and says what that is. Nothing that was written is lost without a question.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import msgspec
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from samovar.chats.profile import ChatProfile
from samovar.config import SamplingConfig
from samovar.core.errors import SamovarError
from samovar.core.figures import count
from samovar.core.lint import prompt_warning
from samovar.core.safe_text import clean
from samovar.sessions.personas import Persona
from samovar.sessions.settings import SessionSettings, checked
from samovar.sessions.tags import joined_tags, split_tags
from samovar.tui.screens.name_persona import NamePersona
from samovar.tui.screens.picker import Choice, Chooser
from samovar.tui.screens.question import Question
from samovar.tui.widgets.form import Deed, Field, Tick
from samovar.tui.widgets.line import do_own_key

_ROOMY_FROM: Final = 60
_SAMPLING: Final = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed", "max_tokens")
_CONTEXT_FULL: Final = "context_full"
_UNSET: Final = {"seed": "random", "max_tokens": "no limit", _CONTEXT_FULL: "stop or shift"}
_LOST: Final = "Leave without saving? What you have changed here is lost."


class ShownChat(msgspec.Struct, frozen=True):
    """What the screen is about. `num_tokens` is None where nobody knows how long the chat is."""

    profile: ChatProfile
    is_stored: bool
    num_messages: int = 0
    num_tokens: int | None = None


class Personas(msgspec.Struct, frozen=True):
    """The user's personas, what is wrong with some, and what keeps a new one (it may raise SamovarError)."""

    found: Sequence[Persona] = ()
    problems: Sequence[str] = ()
    keep: Callable[[Persona], object] | None = None


class ChatSettings(ModalScreen[ChatProfile | None]):
    """Ends with the profile as it shall be, or None where nothing shall change."""

    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (_ROOMY_FROM, "-roomy")]  # noqa: RUF012 - not ClassVar in Textual either
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "save them", id="settings.save", priority=True),
        Binding("escape", "leave", "leave them as they were", id="settings.leave"),
    ]

    def __init__(self, chat: ShownChat, default: SamplingConfig, personas: Personas) -> None:
        super().__init__()
        self._chat = chat
        self._profile = chat.profile
        self._personas = personas
        self._base = chat.profile.settings  # with what has no line here
        profile = chat.profile
        self._title = Field(
            "title", "title", _one_line(profile.title), _one_line(profile.title) or "new chat"
        )
        self._tags = Field("tags", "tags", joined_tags(profile.tags), "none")
        self._favourite = Tick("favourite", value=profile.is_favourite, id="favourite")
        self._archived = Tick("archived", value=profile.is_archived, id="archived")
        self._pin = Tick("pinned in the cache", value=self._base.pin, id="pin")
        self._prompt = _Text(clean(profile.system_prompt), id="system-prompt")
        self._stop = _Text(_stop_lines(self._base), id="stop")
        self._sampling = {
            name: Field(name, name, _word(self._base, name), _default_word(default, name))
            for name in (*_SAMPLING, _CONTEXT_FULL)
        }
        self._persona = Deed("persona", id="persona")
        self._save = Deed("save", id="save")
        self._leave = Deed("leave", id="leave")
        self._before: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        with Vertical(id="chat-settings"):
            yield Static(Content.assemble(("chat settings", "bold $brass")), classes="form-title")
            with VerticalScroll(id="chat-settings-body", can_focus=False):
                yield self._title
                yield self._tags
                with Horizontal(classes="ticks"):
                    yield self._favourite
                    if self._chat.is_stored:
                        yield self._archived
                    yield self._pin
                yield _heading("SYSTEM PROMPT", "counts from the next message on")
                yield self._persona
                yield self._prompt
                yield Static("", id="prompt-note")
                yield _heading("REPLIES", "an empty line is as configured")
                yield from self._sampling.values()
                yield _heading("STOP TEXTS", "each on a line of its own")
                yield self._stop
                yield Static("", id="stop-error")
            with Horizontal(id="chat-settings-deeds"):
                yield self._save
                if self._personas.keep is not None:
                    yield Deed("save as persona", id="save-persona")
                yield self._leave

    def on_mount(self) -> None:
        self._show_persona()
        self._before = self._written()
        self._title.input.focus()

    def on_resize(self, event: events.Resize) -> None:
        is_roomy = event.size.width >= _ROOMY_FROM
        self._save.set_aside("ctrl+s" if is_roomy else "")
        self._leave.set_aside("esc" if is_roomy else "")

    def _show_persona(self) -> None:
        name = _one_line(self._base.persona) or "none"
        self._persona.set_aside(f"{name} · enter chooses" if self._personas.found else name)

    # What is written

    def _written(self) -> tuple[object, ...]:
        return (
            self._title.value,
            self._tags.value,
            self._favourite.value,
            self._archived.value,
            self._pin.value,
            self._prompt.text,
            self._stop.text,
            *(field.value for field in self._sampling.values()),
            self._base,
        )

    def _is_changed(self, widget: "Field | _Text") -> bool:
        text = widget.value if isinstance(widget, Field) else widget.text
        places = (self._title, self._tags, None, None, None, self._prompt, self._stop)
        return text != self._before[places.index(widget)]

    def _system_prompt(self) -> str:
        """As written; as it was where only what a terminal cannot show has been taken out of it."""
        return self._prompt.text if self._is_changed(self._prompt) else self._profile.system_prompt

    def _settings(self) -> SessionSettings | None:
        """The settings as written; None where something is wrong, which is then said."""
        settings = msgspec.structs.replace(self._base, pin=self._pin.value)
        wrong: Widget | None = None
        for name, field in self._sampling.items():
            try:
                settings = settings.with_text(name, field.value.strip() or "-")
                field.set_error("")
            except SamovarError as error:
                field.set_error(str(error))
                wrong = wrong or field.input
        error_line = self.query_one("#stop-error", Static)
        error_line.display = False
        if self._is_changed(self._stop):
            try:
                lines = [line for line in self._stop.text.split("\n") if line]
                settings = checked(msgspec.structs.replace(settings, stop=tuple(map(_unescaped, lines))))
            except SamovarError as error:
                error_line.update(Content(str(error)))
                error_line.display = True
                wrong = wrong or self._stop
        if wrong is not None:
            wrong.focus()
            return None
        return settings

    def _written_tags(self) -> tuple[str, ...] | None:
        if not self._is_changed(self._tags):
            return self._profile.tags
        try:
            tags = split_tags(self._tags.value)
        except SamovarError as error:
            self._tags.set_error(str(error))
            self._tags.input.focus()
            return None
        self._tags.set_error("")
        return tags

    @on(Input.Blurred)
    def _left_line(self, event: Input.Blurred) -> None:
        """Say at once what is wrong with a line."""
        event.stop()
        field = self._sampling.get(event.input.name or "")
        if field is not None:
            try:
                self._base.with_text(event.input.name or "", event.value.strip() or "-")
                field.set_error("")
            except SamovarError as error:
                field.set_error(str(error))

    @on(TextArea.Changed, "#system-prompt")
    def _prompt_changed(self, event: TextArea.Changed) -> None:
        event.stop()
        note = self.query_one("#prompt-note", Static)
        parts = [prompt_warning(self._prompt.text), self._cost()]
        note.update(Content("\n".join(part for part in parts if part)))
        note.display = any(parts)

    def _cost(self) -> str:
        """What another system prompt costs a chat that has messages."""
        if not self._before or not self._is_changed(self._prompt) or not self._chat.num_messages:
            return ""
        about = f": about {count(self._chat.num_tokens)} tokens" if self._chat.num_tokens else ""
        return f"the whole chat will be processed again{about}"

    # Personas

    @on(Deed.Done, "#persona")
    def _choose_persona(self) -> None:
        if not self._personas.found:
            said = (
                "; ".join(self._personas.problems) or "there are no personas yet: save as persona makes one"
            )
            self.notify(clean(said), markup=False)
            return
        choices = [Choice(_one_line(one.name), _one_line(one.description)) for one in self._personas.found]

        def take(place: int | None) -> None:
            if place is not None:
                self._ask_for_persona(self._personas.found[place])

        for problem in self._personas.problems:
            self.notify(clean(problem), markup=False)
        self.app.push_screen(Chooser("personas", "words", choices), take)

    def _ask_for_persona(self, persona: Persona) -> None:
        if not self._is_changed(self._prompt) or not self._prompt.text.strip():
            self._take_persona(persona)
            return

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self._take_persona(persona)

        self.app.push_screen(
            Question("Take the persona's system prompt? The one you have written here is lost."), answered
        )

    def _take_persona(self, persona: Persona) -> None:
        self._base = persona.settings
        self._prompt.load_text(clean(persona.system_prompt))
        self._stop.load_text(_stop_lines(persona.settings))
        self._pin.set_value(value=persona.settings.pin)
        for name, field in self._sampling.items():
            field.value = _word(persona.settings, name)
        self._show_persona()

    @on(Deed.Done, "#save-persona")
    def _save_persona(self) -> None:
        settings, keep = self._settings(), self._personas.keep
        if settings is None or keep is None:
            return
        prompt = self._system_prompt()

        def save(name: str, description: str) -> None:
            keep(Persona(name, description, prompt, msgspec.structs.replace(settings, persona=name)))

        def saved(name: str | None) -> None:
            if name is not None:
                self._base = msgspec.structs.replace(self._base, persona=name)
                self._show_persona()

        self.app.push_screen(NamePersona(save), saved)

    # The end

    @on(Deed.Done, "#save")
    def action_save(self) -> None:
        """Hand over what is written, if nothing is wrong with it."""
        settings = self._settings()
        tags = self._written_tags() if settings is not None else None
        if settings is None or tags is None:
            return
        title = " ".join(self._title.value.split())
        profile = ChatProfile(
            title if title and self._is_changed(self._title) else self._profile.title,
            self._system_prompt(),
            settings,
            tags,
            self._favourite.value,
            self._archived.value,
        )
        self.dismiss(profile if profile != self._profile else None)

    @on(Deed.Done, "#leave")
    def action_leave(self) -> None:
        """Leave; what was written is asked about first."""
        if self._written() == self._before:
            self.dismiss(None)
            return

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self.dismiss(None)

        self.app.push_screen(Question(_LOST), answered)


class _Text(TextArea):
    """Several lines; tab leaves them."""

    def __init__(self, text: str, *, id: str) -> None:
        super().__init__(text, id=id, compact=True, highlight_cursor_line=False, tab_behavior="focus")
        self.cursor_blink = False

    async def _on_key(self, event: events.Key) -> None:
        await do_own_key(self, event)


def _heading(text: str, aside: str) -> Static:
    return Static(Content.assemble((text, "$secondary"), (f"   {aside}", "$faint")), classes="form-heading")


def _word(settings: SessionSettings, name: str) -> str:
    value = getattr(settings, name)
    return "" if value is None else str(value)


def _default_word(default: SamplingConfig, name: str) -> str:
    value = getattr(default, name, None)
    return _UNSET[name] if value is None else str(value)


def _stop_lines(settings: SessionSettings) -> str:
    return "\n".join(clean(text.replace("\n", "\\n").replace("\t", "\\t")) for text in settings.stop)


def _unescaped(line: str) -> str:
    return line.replace("\\n", "\n").replace("\\t", "\t")


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())
