"""The help screen's text."""

from samovar.tui.screens.help import HelpGroup, command_group, group_text


def test_every_key_stands_apart_from_what_it_does() -> None:
    long = HelpGroup("KEYS", (("/a-very-long-command [ARGUMENT]", "does it"), ("f1", "help")))
    assert group_text(long, 76).plain.splitlines()[1:] == [
        "/a-very-long-command [ARGUMENT]",
        f"{'':24}does it",
        f"{'f1':24}help",
    ]
    for line in group_text(command_group(), 76).plain.splitlines()[1:]:
        assert line[23:24] in ("", " "), line
