"""The agent's own version; the wheel carries the same number (a test compares)."""

VERSION = "0.1.0"
