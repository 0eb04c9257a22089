"""What chats and snapshot say together: the rows of the list, the colours of the prompts. Pure."""

from collections.abc import Mapping, Sequence

from samovar.chats.chat import Chat
from samovar.core.snapshot import FREE, SHARED, CacheSnapshot
from samovar.tui.theme import Palette, session_color
from samovar.tui.widgets.session_list import SessionRow


def session_rows(chats: Sequence[Chat], snapshot: CacheSnapshot) -> list[SessionRow]:
    """One row a chat, with where its prompt is and how long it is."""
    prompts = {prompt.session: prompt for prompt in snapshot.prompts}
    rows = []
    for chat in chats:
        prompt = prompts.get(chat.id)
        rows.append(
            SessionRow(
                id=chat.id,
                title=chat.title,
                ordinal=chat.ordinal,
                tier=prompt.tier if prompt else None,
                tokens=prompt.tokens if prompt else chat.num_tokens,
                running=chat.reply is not None or (prompt is not None and prompt.running),
            )
        )
    return rows


def prompt_colors(chats: Mapping[str, Chat], snapshot: CacheSnapshot, palette: Palette) -> dict[str, str]:
    """The colour of every session in the snapshot; of those that are no chat of ours too."""
    sessions = {prompt.session for prompt in snapshot.prompts}
    sessions |= {run.owner for run in snapshot.context.runs if run.owner not in (FREE, SHARED)}
    return {
        session: session_color(palette, chats[session].ordinal if session in chats else session)
        for session in sessions
    }
