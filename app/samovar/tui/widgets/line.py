"""A line to write in whose keys take effect in the order in which they were pressed.

Textual's fields take letters where they arrive, and all other keys through a binding, which runs later. What
comes in one piece (from a slow connection, or while the screen is busy) would be mixed up: backspace would
delete what was written after it. So a field does its own keys where it takes letters.
"""

from typing import Final

from textual import events
from textual.widget import Widget
from textual.widgets import Input

_LEAVING: Final = ("enter", "escape")  # others have their part in these: they wait for what is under way


async def do_own_key(field: Widget, event: events.Key) -> None:
    """Do what a field itself binds this key to, now; not for keys that leave it. For its `_on_key`."""
    if event.key in _LEAVING:
        return
    for binding in field._bindings.key_to_bindings.get(event.key, ()):
        if await field.app.run_action(binding.action, field):
            event.prevent_default()
            event.stop()
            return


class Line(Input):
    """An input in which fast keys stay in order."""

    async def _on_key(self, event: events.Key) -> None:
        """Runs before the input's own handler, which takes letters."""
        await do_own_key(self, event)
