"""The catalogue: 68 families of bad input, and where those are tried that are no request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FAMILIES: Final[Mapping[int, str]] = {
    1: "../x",
    2: "absolute path",
    3: "encoded path",
    4: "NUL",
    5: "control characters in names",
    6: "very long names",
    7: "NFC and NFD twins",
    8: "full-width slash and dots",
    9: "case twins",
    10: "names like options",
    11: "symlink out of the work directory",
    12: "symlink swapped after the check",
    13: "hardlink to a foreign file",
    14: "FIFO, device or socket as an output",
    15: "sparse giant",
    16: "glob with a million matches",
    17: "/proc/self/environ, ~/.ssh as an input",
    18: "tar slip",
    19: "zip slip",
    20: "links inside an archive",
    21: "archive bomb",
    22: "a million members",
    23: "duplicate names in an archive",
    24: "setuid bits and owners in an archive",
    25: "shell code in a parameter",
    26: "leading dash",
    27: "#SBATCH by a newline",
    28: "dangerous environment variables",
    29: "Jinja in templates",
    30: "account or partition with blanks or commas",
    31: "regular expression of a user",
    32: "CSV formula",
    33: "ranges without end, step 0",
    34: "product of sweeps",
    35: "NaN, Infinity, 1e999",
    36: "-0, 2^63, 10^5000",
    37: "true where an integer stands",
    38: "Unicode digits",
    39: "times beyond the calendar",
    40: "YAML 1.1 numbers and walltimes",
    41: "lone surrogate",
    42: "escaped NUL",
    43: "invalid UTF-8, BOM, UTF-16",
    44: "duplicate keys",
    45: "deep nesting",
    46: "YAML alias bomb",
    47: "YAML python objects",
    48: "collation twins, trailing blanks, emoji",
    49: "homoglyph names",
    50: "gzip bomb, lying Content-Encoding",
    51: "large and many headers",
    52: "body without or with a wrong length, smuggling",
    53: "slowloris",
    54: "X-Forwarded-For",
    55: "method override, HEAD, OPTIONS, TRACE",
    56: "parameter pollution",
    57: "no MAX_CONTENT_LENGTH",
    58: "log injection",
    59: "CORS and CSRF",
    60: "forged tokens",
    61: "refresh reuse",
    62: "ids of another tenant",
    63: "mass assignment",
    64: "forged cursor or ETag",
    65: "idempotency key of another",
    66: "SSRF",
    67: "SFTP host key, roots and options",
    68: "S3 bucket and key",
}

_OUTPUTS = "tests/unit/test_agent_parts.py"
_ARCHIVES = "tests/bad_input/test_archives.py"
_HTTP = "tests/bad_input/test_http.py"

# Tests of what is no request: an agent's files, archives, HTTP itself, other servers.
ELSEWHERE: Final[Mapping[int, tuple[str, ...]]] = {
    11: (f"{_OUTPUTS}::test_outputs_that_lead_elsewhere_are_refused",),
    12: (f"{_OUTPUTS}::test_a_link_that_is_swapped_in_is_not_followed",),
    13: ("tests/bad_input/test_agent_files.py::test_a_hard_link_to_a_foreign_file_is_refused",),
    14: ("tests/bad_input/test_agent_files.py::test_what_is_no_file_is_refused_at_once",),
    15: (f"{_OUTPUTS}::test_a_sparse_giant_is_refused",),
    16: (
        "tests/unit/test_agent_outputs.py::"
        "test_more_outputs_than_may_be_are_refused_before_any_is_read",
        "tests/unit/test_agent_outputs.py::test_a_glob_looks_at_so_many_names_and_no_more",
    ),
    18: (f"{_ARCHIVES}::test_a_member_that_leaves_the_folder_is_not_written",),
    19: (f"{_ARCHIVES}::test_a_bundle_writes_nothing",),
    20: (
        f"{_ARCHIVES}::test_a_member_through_a_link_of_the_archive_is_not_written",
        "tests/unit/test_client_downloads.py::test_links_in_the_archive_are_refused",
    ),
    21: (f"{_ARCHIVES}::test_a_member_larger_than_its_file_is_stopped",),
    22: (f"{_ARCHIVES}::test_members_are_forgotten_one_by_one",),
    23: (f"{_ARCHIVES}::test_a_member_that_comes_twice_counts_once",),
    24: (f"{_ARCHIVES}::test_owners_and_special_bits_of_an_archive_are_not_taken_over",),
    51: (f"{_HTTP}::test_what_is_no_request_is_refused_and_does_nothing",),
    52: (
        f"{_HTTP}::test_what_is_no_request_is_refused_and_does_nothing",
        f"{_HTTP}::test_a_body_longer_than_its_length_is_a_second_request_of_nobody",
    ),
    53: (f"{_HTTP}::test_slow_clients_hold_their_own_threads_only",),
    54: (
        "tests/integration/test_functions_limits.py::test_a_forged_address_makes_no_new_bucket",
        "tests/integration/test_functions_limits.py::"
        "test_https_is_required_behind_trusted_proxies_only",
    ),
    66: (
        "tests/integration/test_connection_tests.py::test_no_kind_reaches_inside",
        "tests/unit/test_outbound.py::test_a_name_is_asked_for_once",
    ),
    67: (
        "tests/integration/test_connection_tests.py::test_a_server_with_another_key_gets_nothing",
    ),
    68: ("tests/integration/test_connection_tests.py::test_malformed_stores",),
}

# What this system has no place for yet, with the reason.
NOT_HERE: Final[Mapping[int, str]] = {}
