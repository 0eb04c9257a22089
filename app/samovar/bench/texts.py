"""Made-up text of a given number of words, the same in every run. Pure functions."""

import random
from typing import Final

_TEXT: Final = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point
home water room mother area money story fact month lot right study book eye job word business issue
side kind head house service friend father power hour game line end member law car city community
name president team minute idea body information back parent face others level office door health
person art war history party result change morning reason research girl guy moment air teacher force
education
"""
_WORDS: Final = _TEXT.split()


def words(count: int, seed: int) -> str:
    """`count` common words in sentences; equal seeds give equal text."""
    chosen = random.Random(seed).choices(_WORDS, k=count)
    sentences = [" ".join(chosen[start : start + 12]) for start in range(0, count, 12)]
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences)
