"""A chat with side tasks after each of its turns: what do they cost, and what do they cost the chat?"""

from typing import Final

import msgspec

from samovar.bench.driver import Answer, Chat, ClientFactory, Driver
from samovar.bench.switchboard import Round, summary
from samovar.bench.texts import words
from samovar.tasks.builtin import KEYWORDS, SUMMARY, TITLE
from samovar.tasks.prompt import Filling, side_request
from samovar.tasks.spec import TaskSpec

REPLY_TOKENS: Final = 16
QUESTION_WORDS: Final = 3
_TASKS: Final = (TITLE, SUMMARY, KEYWORDS)


class Result(msgspec.Struct, frozen=True):
    """`main` are the chat's turns behind its opening, the others all runs of that task.

    `ram_growth_tokens` is what the cache in RAM grew by in a turn, side tasks included, and `own_tokens` what
    the chat itself grew by.
    """

    model: str
    main: Round
    title: Round
    summary: Round
    keywords: Round
    ram_growth_tokens: float
    own_tokens: float


async def run(client_factory: ClientFactory, turns: int = 5, own_words: int = 1200) -> Result:
    """Open a chat with `own_words`, ask `turns` short questions, and run the tasks after each reply."""
    async with client_factory() as client:
        driver = Driver(client)
        model = await driver.ready()
        chat = Chat("chat")
        main: list[Answer] = []
        tasks: dict[str, list[Answer]] = {spec.name: [] for spec in _TASKS}
        sizes: list[tuple[int, int]] = []  # tokens in RAM, and those of the chat, at the end of each turn
        for turn in range(turns + 1):
            text = words(QUESTION_WORDS if turn else own_words, seed=1000 + turn)
            answer = await driver.ask(chat.ask(text, REPLY_TOKENS))
            chat.hear(answer.finished)
            main += [answer] if turn else []
            for spec in _TASKS:
                tasks[spec.name].append(await _task(driver, chat, spec))
            stats = answer.finished.stats
            num_own = stats.prompt_tokens + stats.generated_tokens
            sizes.append(((await driver.snapshot()).host.tokens, num_own))
    rounds = {name: summary(answers) for name, answers in tasks.items()}
    ram_growth, own = ((last - first) / turns for first, last in zip(sizes[0], sizes[-1], strict=True))
    return Result(model.name, summary(main), **rounds, ram_growth_tokens=ram_growth, own_tokens=own)


async def _task(driver: Driver, chat: Chat, spec: TaskSpec) -> Answer:
    request = side_request(
        spec, tuple(chat.messages), Filling(), session=chat.session, chat_title=chat.session, urgent=True
    )
    return await driver.ask(msgspec.structs.replace(request, max_tokens=min(REPLY_TOKENS, spec.max_tokens)))


def text(result: Result) -> str:
    """The result for people."""
    lines = [f"{result.model}: a chat with side tasks after each of its turns", ""]
    lines.append("           n   first token (max)     prompt   processed   reused")
    rounds = (
        ("turns", result.main),
        ("title", result.title),
        ("summary", result.summary),
        ("keywords", result.keywords),
    )
    for name, part in rounds:
        lines.append(
            f"{name:<9} {part.n:>2}  {part.first_token_ms:>6,.0f} ({part.first_token_max_ms:,.0f}) ms"
            f"  {part.prompt:>9,.0f}   {part.processed:>9,.1f}   {100 * part.hit:>5.1f} %"
        )
    lines.append("")
    lines.append(
        f"a turn adds {result.own_tokens:,.1f} tokens to the chat"
        f" and {result.ram_growth_tokens:,.1f} to what is kept in RAM"
    )
    return "\n".join(lines)
