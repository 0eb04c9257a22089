"""Commands that answer and end: one question, the cache's state, the end of the engine."""
