"""x"""
from samovar.sessions.words import searchable
