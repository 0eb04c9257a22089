"""The cache as pure Python: what is known, where it is, what to move. No llama.cpp, no threads, no screen."""
