"""The one error type whose message is written for the user."""


class SamovarError(Exception):
    """Something in the user's world went wrong; the message says what, and what to do next."""
