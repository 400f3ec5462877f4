"""Which passwords are refused, and which are not."""

from __future__ import annotations

import time

import pytest

from airavata_scheduler.functions import passwords
from airavata_scheduler.functions.passwords import check_policy
from airavata_scheduler.models.errors import BadInput

COMMON = """
1234567890 0123456789 0987654321 1111111111 1212121212 abcdefghij abcabcabcabc aaaaabbbbb
qwertyuiop qwertzuiop qwerty12345 qwerty123456 1q2w3e4r5t 1qaz2wsx3edc asdfghjkl1 zxcvbnm1234
administrator adminadmin123 changeme123 changemenow iloveyou123 letmein1234 password12
Password123! P@ssw0rd!! passw0rd2024 passwordpassword summer2024! welcome1234 airavata123
airavata-scheduler your-password your-secret-key correcthorsebatterystaple 00password00
""".split()  # noqa: SIM905 - a table of words
GOOD = (
    "correct horse battery",
    "three unrelated words",
    "strong moon tiger",
    "qwerty lion umbrella",
    "summer in the archive",
    "Tr0ub4dor&3xy",
    "vZ8kqP2mLw",
    "9f8a7b6c5d4e",
    "пароль из трёх слов",
    "ⓤⓝⓤⓢⓤⓐⓛ ⓣⓨⓟⓔ",
)


@pytest.mark.parametrize("password", COMMON)
def test_what_anybody_would_try_is_refused(password: str) -> None:
    """Known words with decoration, walks over the keyboard, repetitions."""
    with pytest.raises(BadInput) as caught:
        check_policy(password, username="ada")

    assert caught.value.code == "weak_password"


@pytest.mark.parametrize("password", GOOD)
def test_what_is_hard_to_guess_is_taken(password: str) -> None:
    """Blanks, any alphabet, no rule about capitals and signs."""
    check_policy(password, username="ada")


@pytest.mark.parametrize(
    ("password", "username"),
    [
        ("short", "ada"),
        ("x" * 8 + "y", "ada"),
        ("kq" * 200, "ada"),
        ("GraceHopper1", "gracehopper"),
        ("my-grace-grace", "grace-grace"),
    ],
)
def test_length_and_name(password: str, username: str) -> None:
    """Ten characters at least, 256 at most, and more than the user's own name."""
    with pytest.raises(BadInput):
        check_policy(password, username=username)


def test_the_longest_password_costs_no_time() -> None:
    """The rules are linear: nobody holds a thread with a long text."""
    started = time.process_time()

    for text in ("a1" * 128, "qw" * 128, "abc" * 85, "password" * 32):
        with pytest.raises(BadInput):
            check_policy(text, username="")

    assert time.process_time() - started < 1


def test_one_password_has_one_form() -> None:
    """A keyboard that composes accents and one that does not type the same password."""
    assert passwords.matches("pâte feuilletée", passwords.hashed("pa\u0302te feuillete\u0301e"))
