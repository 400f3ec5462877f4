"""Passwords that anybody would try first: known words and walks over the keyboard, by rule.

A list of the ten characters that people add to `password` would never end. So what is compared is
what is left of a password when its digits, signs and doubled halves are taken away.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

# Words that lead every list of leaked passwords, and those of this product and its guide.
_WORDS: Final = frozenset(
    """
    abc access admin administrator apache apple baseball batman bonjour
    changeit changeme changemenow charlie cheese chocolate cluster computer
    correcthorsebatterystaple daniel default demo dragon external flower football freedom fuckyou
    gateway geheim guest hallo hello hunter iloveyou internet jennifer jesus jordan killer letmein
    login lovely loveme manager market maria master matrix michael michelle monkey mustang
    mypassword nicole ninja nothing oracle pass passphrase passwd password passwort people pepper
    pokemon postgres princess public purple qwerty qwertyui qwertyuiop qwertz qwertzuiop azerty
    azertyuiop asdf asdfgh asdfghjkl zxcvbn zxcvbnm root samsung scheduler secret server service
    shadow slurm soccer starwars summer sunshine super superman supersecret superuser sysadmin
    temp temporary test testing tester trustno user username welcome whatever winter autumn spring
    yourpassword yoursecret yoursecretkey zaq
    """.split()  # noqa: SIM905 - a word a line would be a page
) | {"airavata", "airavatascheduler"}
_LEET: Final = str.maketrans(
    {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"}
)
_ROWS: Final = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
)
_WALK_CHARS: Final = 4  # a piece of a row this long is one step of a walk


def is_common(folded: str) -> bool:
    """Whether a case-folded password is a known word with decoration, or a walk, or a repetition.

    Linear in its length; passwords that are long after all of that is taken away are not common.
    """
    if len(set(folded)) < 4:
        return True
    once = _unrepeated(folded)
    if len(once) < 5 and once != folded:
        return True
    bare = re.sub(r"[^a-z]+$", "", once)
    return _is_walk(once) or any(_is_word(text) for text in (once, bare.translate(_LEET)))


def _is_word(text: str) -> bool:
    """A known word, or two of them, between digits and signs."""
    letters = re.sub(r"[^a-z]", "", text)
    halves = ((letters[:at], letters[at:]) for at in range(3, len(letters) - 2))
    return letters in _WORDS or any(one in _WORDS and two in _WORDS for one, two in halves)


def _unrepeated(text: str) -> str:
    """`abc` of `abcabcabc`; a text that repeats nothing stays."""
    at = (text + text).find(text, 1)
    return text[:at]


def _is_walk(text: str) -> bool:
    """Whether nearly all neighbours are so on a keyboard or in the alphabet, or are the same."""
    steps = sum(_is_step(one, two) for one, two in pairwise(text))
    return len(text) - 1 - steps <= len(text) // _WALK_CHARS - 1


_STEPS: Final = frozenset(
    pair for row in _ROWS for line in (row, row[::-1]) for pair in pairwise(line)
)


def _is_step(one: str, two: str) -> bool:
    return one == two or (one, two) in _STEPS
