"""What chats and snapshot say together: rows of the list, its heading, colours of the prompts. Pure."""

from collections.abc import Callable, Mapping

from samovar.chats.chat import Chat
from samovar.chats.roster import Order, Roster
from samovar.core.snapshot import FREE, SHARED, CacheSnapshot
from samovar.tui.theme import Palette, session_color
from samovar.tui.widgets.session_list import SessionRow, tag_words


def row_maker(chats: Mapping[str, Chat], snapshot: CacheSnapshot) -> Callable[[str], SessionRow]:
    """What makes the row of one chat: with where its prompt is and how long it is."""
    prompts = {prompt.session: prompt for prompt in snapshot.prompts}

    def row_of(session: str) -> SessionRow:
        chat, prompt = chats[session], prompts.get(session)
        return SessionRow(
            id=session,
            title=chat.title,
            tier=prompt.tier if prompt else None,
            tokens=prompt.tokens if prompt else chat.num_tokens,
            running=chat.reply is not None or (prompt is not None and prompt.running),
            tags=chat.tags,
            is_favourite=chat.is_favourite,
            is_archived=chat.is_archived,
            has_draft=chat.has_unsent,
            used_at=chat.updated_at,
        )

    return row_of


def arrangement(roster: Roster) -> str:
    """How the list is filtered and sorted, as far as that is not the default: `#work · by title`."""
    parts = [
        tag_words([roster.tag]) if roster.tag else "",
        f"by {roster.order.value}" if roster.order is not Order.RECENT else "",
        "archived too" if roster.with_archived else "",
    ]
    return " · ".join(part for part in parts if part)


def prompt_colors(snapshot: CacheSnapshot, palette: Palette) -> dict[str, str]:
    """The colour of every session in the snapshot; of those that are no chat of ours too."""
    sessions = {prompt.session for prompt in snapshot.prompts}
    sessions |= {run.owner for run in snapshot.context.runs if run.owner not in (FREE, SHARED)}
    return {session: session_color(palette, session) for session in sessions}
