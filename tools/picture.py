"""Draw the picture in the README: the real program with the bundled model, in a terminal of 160 × 46.

python tools/picture.py docs/samovar.svg
"""

import argparse
import asyncio
import re
import tempfile
from pathlib import Path

from textual.pilot import Pilot

from samovar.client.local import LocalClient
from samovar.config import Config, resolve_model
from samovar.core.commands import StopHost
from samovar.paths import Paths
from samovar.sessions.samples import sample_files
from samovar.sessions.store import Store
from samovar.sessions.transfer.files import import_files
from samovar.tui.app import SamovarApp

SYSTEM = (
    "You are a patient teacher of computer science. You answer in short paragraphs, with one small example "
    "where it helps. You say what is sure and what is not. You never use jargon that you have not explained."
)
CHATS = (
    ("What is a linked list?", "How does it compare to an array?"),
    ("What does a compiler do?", "And an interpreter?"),
    ("Explain recursion with a Python example.", "When should I avoid it?"),
    ("What is a hash table? Show a short Python example.", "What happens when two keys collide?"),
)
PATIENCE_S = 180.0


async def answer(app: SamovarApp, pilot: Pilot[None], text: str) -> None:
    """Type a message, send it and wait for the end of its reply."""
    await pilot.press(*("space" if char == " " else char for char in text), "enter")
    chats = app.conversations
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not (chats.shown.path and len(chats.shown.path) % 2 == 0 and chats.shown.reply is None):
        assert asyncio.get_running_loop().time() < deadline, "no reply"
        await pilot.pause(0.05)


async def draw(columns: int, rows: int) -> str:
    """Chat for a while beside the sample sessions, in a home of its own; returns the screen as SVG."""
    with tempfile.TemporaryDirectory(prefix="samovar-picture-") as home:
        paths = Paths.from_env({"SAMOVAR_HOME": home})
        paths.ensure()
        config = Config.load(
            paths.config_file,
            overrides={
                "sampling.temperature": 0.0,
                "sampling.max_tokens": 150,
                "sampling.repeat_penalty": 1.15,
                "system_prompt": SYSTEM,
                "ram_limit": "256MiB",
                "context": 1024,
            },
        )
        client = LocalClient.starting(
            config.engine_settings(resolve_model(config)),
            run_dir=paths.run_dir,
            cache_dir=paths.cache_dir,
            log_file=paths.log_file,
            name="picture",
        )
        store = Store.open(paths.database)
        import_files(store, sample_files())
        app = SamovarApp(client, store, config)
        async with app.run_test(size=(columns, rows)) as pilot:
            for first, _ in CHATS:
                await answer(app, pilot, first)
                if first != CHATS[-1][0]:
                    await pilot.press("ctrl+n")
            await answer(app, pilot, CHATS[-1][1])
            await pilot.pause(1.0)
            svg = app.export_screenshot(title="samovar")
            client.send(StopHost())
            await pilot.pause(0.2)
        store.close()
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--columns", type=int, default=160)
    parser.add_argument("--rows", type=int, default=46)
    args = parser.parse_args()
    svg = asyncio.run(draw(args.columns, args.rows))
    args.target.parent.mkdir(parents=True, exist_ok=True)
    args.target.write_text(svg)


if __name__ == "__main__":
    main()
