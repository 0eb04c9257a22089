"""What every front end does with chats: send, stream, store, stop, delete, undo. No screen."""
