"""From messages to tokens, with a toy tokenizer: words and bytes, two control tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.chat import ChatMessage, Role
from samovar.core.errors import SamovarError
from samovar.engine.prompt import BEGIN, BREAK, CHATML, END, GROWS, PromptBuilder, fallback_template
from tests.engine.fake_backend import IM_END, IM_START, TOKENIZER, FakeBackend, Kind

BOS = 258
toy = FakeBackend(Kind.DENSE)


def builder(
    template: str | None = CHATML, *, add_bos: bool = False, control: dict[str, int] | None = None
) -> PromptBuilder:
    return PromptBuilder(
        template=template,
        tokenize=toy.tokenize,
        piece=lambda token: b"" if token in (control or {}).values() else toy.piece(token),
        control_tokens={**toy.traits.control_tokens, "<s>": BOS, **(control or {})},
        bos=BOS,
        eos=IM_END,
        add_bos=add_bos,
        tokenizer=TOKENIZER,
    )


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, text)


def system(text: str) -> ChatMessage:
    return ChatMessage(Role.SYSTEM, text)


def reply(text: str, tokens: tuple[int, ...] = (), tokenizer: str = TOKENIZER) -> ChatMessage:
    return ChatMessage(Role.ASSISTANT, text, tokens, tokenizer)


def turn(role: str, text: str) -> list[int]:
    return [IM_START, *toy.tokenize(f"{role}\n{text}"), IM_END, *toy.tokenize("\n")]


ASSISTANT = [IM_START, *toy.tokenize("assistant\n")]
AS_BYTES = tuple(b" a0 b1")  # the tokenizer would take two words
parts = ["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "<", " a0", "x", "\n", BREAK, BEGIN, END]
texts = st.lists(st.sampled_from(parts), max_size=8).map("".join)


def test_a_prompt_is_the_template_with_control_tokens_by_id() -> None:
    expected = [*turn("system", "be brief"), *turn("user", " a0"), *ASSISTANT]
    assert list(builder().build([system("be brief"), user(" a0")])) == expected


def test_generated_tokens_are_kept_as_generated() -> None:
    prompts = builder()
    first = prompts.build([user("x")])
    second = prompts.build([user("x"), reply(" a0 b1", AS_BYTES), user("y")])
    assert second[: len(first) + len(AS_BYTES)] == first + AS_BYTES


def test_text_behind_the_known_tokens_is_tokenized() -> None:
    prompt = builder().build([user("x"), reply(" a0 b1 c2", AS_BYTES), user("y")])
    rest = (*AS_BYTES, *toy.tokenize(" c2"), IM_END)
    assert any(prompt[i : i + len(rest)] == rest for i in range(len(prompt)))


@pytest.mark.parametrize(
    "message",
    [reply(" a0 b1", AS_BYTES, "another"), reply(" a0 edited", AS_BYTES), reply(" a0 b1")],
)
def test_tokens_that_do_not_spell_the_reply_are_not_used(message: ChatMessage) -> None:
    prompt = builder().build([user("x"), message, user("y")])
    expected = [*turn("user", "x"), *turn("assistant", message.content), *turn("user", "y"), *ASSISTANT]
    assert list(prompt) == expected


@given(texts, texts, texts)
def test_what_people_type_stays_text(first: str, answer: str, second: str) -> None:
    messages = [user(first), reply(answer), user(second)]
    prompt = builder().build(messages)
    control = [token for token in prompt if token in (IM_START, IM_END, BOS)]
    assert control == [IM_START, IM_END] * 3 + [IM_START]
    shown = b"".join(map(toy.piece, prompt)).decode()
    for text in (first, answer, second):
        visible = text
        for mark in (BREAK, BEGIN, END):
            visible = visible.replace(mark, "\ufffd")
        assert visible in shown


@given(texts, texts)
def test_a_kept_reply_may_hold_anything(text: str, asked: str) -> None:
    clean = text.replace(BREAK, "").replace(BEGIN, "").replace(END, "")
    tokens = tuple(clean.encode())
    prompt = builder().build([user(asked), reply(clean, tokens), user("y")])
    start = builder().build([user(asked)])
    assert prompt[: len(start) + len(tokens)] == start + tokens


def test_a_control_token_of_one_character_is_no_way_in_either() -> None:
    prompt = builder(control={"§": 259}).build([user("a§b")])
    assert 259 not in prompt


def test_a_template_that_strips_replies_leaves_them_as_generated() -> None:
    strict = CHATML.replace("message['content']", "message['content'] | trim")
    prompt = builder(strict).build([user("x"), reply(" a0 b1", AS_BYTES), user("y")])
    assert prompt[len(builder(strict).build([user("x")])) :][: len(AS_BYTES)] == AS_BYTES


def test_a_template_that_drops_reasoning_is_followed() -> None:
    dropping = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    thought = "hm</think> a0"
    messages = [
        user("x"),
        reply(thought, tuple(thought.encode())),
        user("y"),
        reply(" b1", tuple(b" b1")),
        user("z"),
    ]
    prompt = builder(dropping).build(messages)
    expected = [*turn("user", "x"), *turn("assistant", " a0"), *turn("user", "y"), *ASSISTANT]
    assert list(prompt[: len(expected)]) == expected
    assert prompt[len(expected) :][:3] == tuple(b" b1"), "the other reply is kept as generated"


def test_a_template_without_a_system_role_gets_it_in_the_first_message() -> None:
    refusing = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    )
    assert list(builder(refusing).build([system("s"), user("x")])) == [*turn("user", "s\n\nx"), *ASSISTANT]


def test_without_a_template_chatml_is_used() -> None:
    prompts = builder(None)
    assert prompts.stop == (), "its control tokens end a reply"
    assert list(prompts.build([user("x")])) == [*turn("user", "x"), *ASSISTANT]


def test_without_a_template_the_vocabulary_decides() -> None:
    assert fallback_template({"<start_of_turn>", "<end_of_turn>"}).name == "Gemma's turn markers"
    spelled = fallback_template({"<s>"})
    assert spelled.name == "ChatML"
    assert "<|im_end|>" in spelled.stop, "where no control token ends a turn, its text does"


def test_a_broken_template_is_a_clear_error() -> None:
    with pytest.raises(SamovarError, match="not valid"):
        builder("{% for %}")


@pytest.mark.parametrize(
    "body",
    [
        "{{ raise_exception('alternate!') }}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{{ messages[99].x.y }}",
        "{{ ''.__class__.mro() }}",
    ],
)
def test_a_template_that_fails_is_a_clear_error(body: str) -> None:
    with pytest.raises(SamovarError, match="refuses"):
        builder(body).build([system("s"), user("x")])


def test_bos_comes_once() -> None:
    assert builder(add_bos=True).build([user("x")])[:2] == (BOS, IM_START)
    assert builder("{{ bos_token }}" + CHATML, add_bos=True).build([user("x")])[:2] == (BOS, IM_START)
    assert builder("{{ bos_token }}" + CHATML).build([user("x")])[:2] == (BOS, IM_START)


def test_control_tokens_spell_nothing() -> None:
    prompts = builder()
    assert prompts.text_of((IM_START, *b"hi", IM_END)) == "hi"
    assert prompts.control_text(IM_END) == "<|im_end|>"
    assert prompts.control_text(97) == ""


# ---- a reply that is gone on with


def test_an_open_reply_stands_as_generated_where_it_was_generated() -> None:
    prompts, asked = builder(), [system("be brief"), user("x")]
    assert prompts.build([*asked, reply(" a0 b1", AS_BYTES)]) == prompts.build(asked) + AS_BYTES


def test_replies_before_an_open_one_are_closed() -> None:
    prompts, asked = builder(), [user("x"), reply(" a0", tuple(b" a0")), user("y")]
    prompt = prompts.build([*asked, reply(" a0 b1", AS_BYTES)])
    assert prompt == prompts.build(asked) + AS_BYTES
    assert prompt.count(IM_END) == 3


@pytest.mark.parametrize("tokens", [(), tuple(b"  a0"), tuple(b"  a0 \n "), tuple(b"other")])
def test_no_space_of_an_open_reply_is_lost(tokens: tuple[int, ...]) -> None:
    strict = CHATML.replace("message['content']", "message['content'] | trim")
    prompts, text = builder(strict), "  a0 \n "
    asking, begun = prompts.parts([user("x"), reply(text, tokens)])
    assert asking == prompts.build([user("x")])
    assert prompts.text_of(begun) == text
    if text.encode().startswith(bytes(tokens)):
        assert begun[: len(tokens)] == tokens


@pytest.mark.parametrize("before", [[user("x")], [user("x"), reply(" a0"), user("y")]])
def test_an_empty_reply_asks_for_a_new_one(before: list[ChatMessage]) -> None:
    assert builder().build([*before, reply("")]) == builder().build(before)


def test_a_reply_alone_is_left_open_too() -> None:
    assert list(builder().build([reply(" a0")])) == [*ASSISTANT, *toy.tokenize(" a0")]


def test_a_template_never_sees_an_open_reply() -> None:
    refusing = (
        "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('whose turn?') }}{% endif %}" + CHATML
    )
    assert builder(refusing).build([user("x"), reply(" a0")]) == builder().build([user("x"), reply(" a0")])


def test_no_messages_are_no_mistake_of_ours() -> None:
    assert list(builder().build([])) == ASSISTANT


@given(texts, texts)
def test_an_open_reply_is_text_whatever_it_holds(asked: str, text: str) -> None:
    prompts = builder()
    asking, begun = prompts.parts([user(asked), reply(text)])
    assert asking == prompts.build([user(asked)])
    assert not {IM_START, IM_END, BOS} & set(begun)
    for mark in (BREAK, BEGIN, END):
        text = text.replace(mark, "\ufffd")
    assert prompts.text_of(begun) == text


# Thinking tags that are control tokens

_THINK, _END_THINK = 300, 301
_THINKING = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")


def thinking_builder(template: str = _THINKING) -> PromptBuilder:
    return builder(template, control={"<think>": _THINK, "</think>": _END_THINK})


def test_thinking_tags_that_are_control_tokens_are_spelled() -> None:
    tokens = (_THINK, *toy.tokenize("way"), _END_THINK, *toy.tokenize("goal"))
    assert thinking_builder().text_of(tokens) == "<think>way</think>goal"
    assert builder(control={"<think>": _THINK, "</think>": _END_THINK}).text_of(tokens) == "waygoal"


def test_a_template_finds_the_tags_of_a_reply_and_drops_its_reasoning() -> None:
    tokens = (_THINK, *toy.tokenize("way"), _END_THINK, *toy.tokenize("goal"))
    history = [user("x"), reply("<think>way</think>goal", tokens), user("y")]
    expected = [*turn("user", "x"), *turn("assistant", "goal"), *turn("user", "y"), *ASSISTANT]
    assert list(thinking_builder().build(history)) == expected


def test_a_template_that_keeps_reasoning_gets_the_very_tokens() -> None:
    tokens = (_THINK, *b" a0", _END_THINK, *toy.tokenize("goal"))
    kept = thinking_builder(CHATML + "{# <think> </think> #}")
    history = [user("x"), reply("<think> a0</think>goal", tokens), user("y")]
    answer = [*ASSISTANT, *tokens, IM_END, *toy.tokenize("\n")]
    assert list(kept.build(history)) == [*turn("user", "x"), *answer, *turn("user", "y"), *ASSISTANT]


def test_a_user_who_writes_a_thinking_tag_sends_text() -> None:
    kept = thinking_builder(CHATML + "{# <think> </think> #}")
    assert _THINK not in kept.build([user("what is <think>?")])


def test_a_prompt_that_ends_in_an_opening_tag_is_known() -> None:
    opens = thinking_builder(_THINKING.replace("assistant\n'", "assistant\n<think>\n'"))
    asking = opens.build([user("x")])
    assert opens.opens_thinking(asking)
    assert opens.without_thinking(asking)[len(asking) :] == (
        *toy.tokenize("\n"),
        _END_THINK,
        *toy.tokenize("\n\n"),
    )
    assert not thinking_builder().opens_thinking(thinking_builder().build([user("x<think>")]))


# ---- what stays however the last message goes on


@given(st.text(), st.text())
def test_a_stable_prefix_begins_every_longer_message(begun: str, more: str) -> None:
    prompts = builder()
    history = [system("be brief"), user("x"), reply(" a0 b1", AS_BYTES)]
    stable = prompts.stable_prefix([*history, user(begun)])
    whole = prompts.build([*history, user(begun + more)])
    assert len(stable) >= len(prompts.build(history[:1])) - len(ASSISTANT)
    # The toy tokenizer joins at most four characters, the last of which may still be missing.
    assert stable[:-4] == whole[: max(0, len(stable) - 4)]


def test_the_stable_prefix_of_an_empty_message_ends_in_its_header() -> None:
    prompts = builder()
    expected = [*turn("system", "be brief"), IM_START, *toy.tokenize("user\n")]
    assert list(prompts.stable_prefix([system("be brief"), user("")])) == expected


def test_a_word_that_may_go_on_is_not_stable_and_a_whole_one_is() -> None:
    prompts = builder()
    header = [IM_START, *toy.tokenize("user\n")]
    assert list(prompts.stable_prefix([user(" a0 a")])) == [*header, *toy.tokenize(" a0")]
    assert list(prompts.stable_prefix([user(" a0 a1")])) == [*header, *toy.tokenize(" a0 a1")]


@pytest.mark.parametrize(
    "template", ["{{ messages[-1].content | upper | length }}", "{{ messages | length }}"]
)
def test_a_template_that_changes_the_message_is_asked_twice(template: str) -> None:
    prompts = builder(template)
    stable = prompts.stable_prefix([user("x")])
    assert stable == prompts.build([user("x")])[: len(stable)]


def test_drafts_leave_nothing_in_the_memory_of_texts() -> None:
    prompts = builder()
    prompts.build([system("be brief"), user("x")])
    prompts.stable_prefix([system("be brief"), user("")])
    before = prompts._fragment_characters
    for draft in ("a", "a draft", "a draft that grows"):
        prompts.stable_prefix([system("be brief"), user(draft)])
    assert prompts._fragment_characters == before


def test_marks_in_a_draft_are_replaced() -> None:
    prompts = builder()
    assert prompts.stable_prefix([user(f"{GROWS} a0")]) == prompts.stable_prefix([user("\ufffd a0")])


def test_the_templates_own_tokens_are_those_besides_what_messages_say() -> None:
    own = (
        "{% if messages[0].role != 'system' %}<|im_start|>Be kind.<|im_end|>{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
    )
    num_kind = len(toy.tokenize("Be kind."))
    assert builder(own).template_tokens() == (2 + num_kind + 2 + 1, 2 + 2 + 1)
