"""Widgets: each takes data and posts messages."""
