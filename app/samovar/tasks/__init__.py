"""Side tasks: what they are, how their prompts are written, what their answers mean."""
