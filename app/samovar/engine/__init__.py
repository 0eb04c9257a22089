"""The engine host: the process that owns the model, the llama context and the cache."""
