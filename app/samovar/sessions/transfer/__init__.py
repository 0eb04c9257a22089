"""Chats in and out of Samovar: files of our own formats and of other programs."""
