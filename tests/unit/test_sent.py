"""What of a chat is sent: the same for a path that has been asked for before as for one that is new."""

import random

import msgspec

from samovar.chats.chat import Chat
from samovar.chats.compaction_plan import next_part
from samovar.chats.prompts import prompt_messages
from samovar.chats.sent import Sender, active, behind, standing
from samovar.config import Config
from samovar.core.chat import Role
from samovar.sessions.store import MessageState, StoredMessage
from samovar.sessions.values import Compaction


def message(number: int, role: Role, text: str) -> StoredMessage:
    return StoredMessage(number, "s", number - 1 or None, role, text, float(number), MessageState.COMPLETE)


def chat_of(path: list[StoredMessage], *compactions: Compaction) -> Chat:
    chat = Chat("s", "", "Be brief.", 0.0, 0.0, path, in_store=True)
    chat.compactions = compactions
    return chat


def summary(number: int, upto_id: int, *, is_undone: bool = False) -> Compaction:
    return Compaction(number, "s", upto_id, f"summary {number}", 0.0, upto_id, 100, 10, is_undone=is_undone)


def test_a_path_is_sent_alike_however_often_and_with_whatever_end_it_is_asked_for() -> None:
    rng = random.Random(5)
    roles = [Role.USER, Role.ASSISTANT, Role.SYSTEM]
    path = [message(n, rng.choice(roles), rng.choice(["", "a", "bb"])) for n in range(1, 60)]
    chat, sender = chat_of(path), Sender(Config())
    for step in range(400):
        match rng.randrange(5):
            case 0:
                path.append(message(1000 + step, rng.choice(roles), rng.choice(["", "c"])))
            case 1 if len(path) > 3:
                del path[-rng.randrange(1, 4) :]
            case 2:
                place = rng.randrange(len(path))
                path[place] = msgspec.structs.replace(path[place], content=f"edited {step}")
            case _:
                pass
        asked = [*path, message(0, Role.USER, f"draft {step}")]
        assert sender.sent(chat, asked).messages == prompt_messages("Be brief.", asked)


def test_the_summary_that_reaches_furthest_stands_and_of_several_the_last() -> None:
    path = [message(n, (Role.ASSISTANT, Role.USER)[n % 2], str(n)) for n in range(1, 9)]
    early, late, again = summary(1, 2), summary(2, 4), summary(3, 4)
    undone, elsewhere = summary(4, 6, is_undone=True), summary(5, 99)
    found = standing(path, [early, again, late, undone, elsewhere])
    assert found == again
    assert [one.id for one in behind(path, found)] == [5, 6, 7, 8]
    assert standing(path, [undone, elsewhere]) is None
    assert active(path[:4], [early, late]) == early, "nothing would be asked behind the other one"


def test_the_part_that_is_summarized_leaves_the_last_turns() -> None:
    path = [message(n, (Role.ASSISTANT, Role.USER)[n % 2], "") for n in range(1, 13)]
    part = next_part(path, 0, [100] * 12, 50, 2000)
    assert part is not None
    assert part.upto == 5, "six messages are 30 % of the context"
    assert next_part(path, 0, [400] * 12, 50, 1000) is None, "not even a turn fits a request"
    small = next_part(path, 0, [100] * 12, 50, 512)
    assert small is not None
    assert (small.upto, small.max_tokens) == (1, 64)
    assert next_part(path, 0, [100] * 12, 50, 512, thinking_tokens=128) is None
