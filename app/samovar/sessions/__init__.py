"""The chats the user sees, kept on disk. Front ends own it; the engine never sees it."""
