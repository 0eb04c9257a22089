"""What a side task is: a prompt behind a chat, and where the answer goes. Values only."""

import enum

import msgspec


class Scope(enum.Enum):
    """What a task is about."""

    CHAT = "chat"
    MESSAGE = "message"  # a selected one, the last reply if none is


class Output(enum.Enum):
    """Where an answer goes. In any case it can be seen in the panel of side tasks."""

    PANEL = "panel"
    TITLE = "title"
    TAGS = "tags"
    COMPOSER = "composer"  # offered to be sent by the user


class When(enum.Enum):
    """When a task runs."""

    ASKED = "asked"
    FIRST_REPLY = "first reply"
    EVERY_REPLY = "every reply"
    NEVER = "never"  # turns off a built-in task of the same name


class TaskSpec(msgspec.Struct, frozen=True):
    """One side task.

    `prompt` is a template: `$input` (what the user typed behind its name), `$title` (of the chat), `$message`
    (the text of the message that it is about) and `$subject` (what names that message: "your last reply"
    where the model has just read it, else its whole text); `$$` is a dollar sign.

    `max_tokens` bounds its answer, `timeout_s` its time since it began to run. `json_schema` (JSON text) or
    `grammar` (GBNF) restrict it; of an answer in JSON, the first value (a text, or a list of texts) counts.
    `needs_input` says what the user has to give, empty where nothing; `default_input` counts where they gave
    nothing. `is_builtin` ones come with Samovar.
    """

    name: str
    prompt: str
    help: str = ""
    scope: Scope = Scope.CHAT
    output: Output = Output.PANEL
    when: When = When.ASKED
    max_tokens: int = 256
    timeout_s: float = 300.0
    temperature: float = 0.0
    json_schema: str = ""
    grammar: str = ""
    needs_input: str = ""
    default_input: str = ""
    is_builtin: bool = True
