"""What the keys of the transcript do: the part of the workstation that works on messages of its chat."""

from collections.abc import Callable, Coroutine

from textual import on
from textual.screen import Screen

from samovar.chats.branches import Branches
from samovar.chats.chat import Chat
from samovar.chats.conversation import Conversations
from samovar.core.errors import SamovarError
from samovar.tui.task_desk import TaskDesk
from samovar.tui.widgets.chat_view import ChatView
from samovar.tui.widgets.transcript import SUMMARY, Transcript
from samovar.tui.widgets.transcript.messages import ASIDE, Wanted


class MessageKeys(Screen[None]):
    """A screen with a chat in it. What is done shows by itself; what cannot be done is said in the view."""

    def __init__(self, conversations: Conversations, view: ChatView, task_desk: TaskDesk) -> None:
        super().__init__()
        self._task_desk = task_desk
        self._conversations = conversations
        self._view = view

    @on(Transcript.EditWanted)
    def _edit(self, event: Transcript.EditWanted) -> None:
        chat = self._view.chat
        if event.entry_id.isdigit():
            self._conversations.branches.begin_edit(chat, int(event.entry_id))
        elif event.entry_id.startswith(SUMMARY):
            self._view.say("a summary cannot be edited; u undoes it")
        else:  # the system prompt
            self._view.composer.set_text(f"/system {chat.system_prompt}")
            self._view.composer.focus_input()

    @on(Transcript.AgainWanted)
    def _again(self, event: Transcript.AgainWanted) -> None:
        self._branch(event, lambda branches, chat, message: branches.again(chat, message), follow=True)

    @on(Transcript.ContinueWanted)
    def _go_on(self, event: Transcript.ContinueWanted) -> None:
        self._branch(event, lambda branches, chat, message: branches.go_on(chat, message), follow=True)

    @on(Transcript.ForkWanted)
    def _fork(self, event: Transcript.ForkWanted) -> None:
        self._branch(event, lambda branches, chat, message: branches.fork(chat, message))

    @on(Transcript.SiblingWanted)
    def _sibling(self, event: Transcript.SiblingWanted) -> None:
        self._branch(event, lambda branches, chat, message: branches.step(chat, message, event.step))

    @on(Transcript.DeleteWanted)
    def _delete_branch(self, event: Transcript.DeleteWanted) -> None:
        async def deed(branches: Branches, chat: Chat, message: int) -> str:
            if refusal := await branches.delete(chat, message):
                return refusal
            # With the last message the keys go to the composer, where u is a letter.
            return f"deleted from here on; {'u or ' if chat.path else ''}/undo brings it back"

        self._branch(event, deed)

    @on(Transcript.TaskWanted)
    def _run_task(self, event: Transcript.TaskWanted) -> None:
        """Run a side task on the message that is selected; an aside is about the whole chat."""
        if event.task == ASIDE:
            self._task_desk.start_named(self._view.chat, event.task)
        elif event.entry_id.isdigit():
            self._task_desk.start_named(self._view.chat, event.task, int(event.entry_id))
        else:
            self._view.say("that is no message: press it on one of the chat")

    @on(Transcript.UndoWanted)
    def _undo_branch(self, event: Transcript.UndoWanted) -> None:
        if event.entry_id is not None and event.entry_id.startswith(SUMMARY):
            self.run_worker(self._undo_summary(self._view.chat), group="branch")
            return
        self.run_worker(self._do(self._conversations.branches.undo(self._view.chat), "back again"))

    async def _undo_summary(self, chat: Chat) -> None:
        try:
            self._view.say(await self._conversations.compacting.undo(chat))
        except SamovarError as error:
            self._view.say_error(str(error))

    def _branch(
        self,
        event: Wanted,
        deed: Callable[[Branches, Chat, int], Coroutine[None, None, str]],
        *,
        follow: bool = False,
    ) -> None:
        """Do something with a message of the shown chat."""
        if event.entry_id.isdigit():
            if follow:
                self._view.follow()
            chat, branches = self._view.chat, self._conversations.branches
            self.run_worker(self._do(deed(branches, chat, int(event.entry_id))), group="branch")
        else:
            self._view.say("that is no message: press it on one of the chat")

    async def _do(self, deed: Coroutine[None, None, str], done: str = "") -> None:
        """Say what came of it: why it cannot be done, or that it is."""
        if told := await deed or done:
            self._view.say(told)

    @on(Transcript.CopyRequested)
    def _copy(self, event: Transcript.CopyRequested) -> None:
        self.app.copy_to_clipboard(event.text)
        self._view.say(f"copied: {event.what}")

    @on(Transcript.NothingToCopy)
    def _nothing_to_copy(self, event: Transcript.NothingToCopy) -> None:
        self._view.say(f"there is no {event.what} to copy here")
