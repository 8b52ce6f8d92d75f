"""Messages of the library in the words of the command line: its options, not the arguments of its functions."""

import re

_WORDS: tuple[tuple[str, str], ...] = (
    (r"create=True makes one", "check --url or $STATEROOM_URL"),
    (r"leave create=False away", "check --url or $STATEROOM_URL"),
    (r"open the store with key_ring=", "set $STATEROOM_KEY_RING to the key ring's file"),
    (r"register it, or read it with raw=True", "name the module that registers it with --import"),
    (r"\b(status|state)_in\b", r"--\1"),
    (r"\bunknown (status|state|order)\b", r"unknown --\1"),
    (r"\bnamespace is b?'(.*?)' of (\d+) bytes", r"--namespace is '\1' of \2 bytes"),
    (r"(may not read and write it and its folder)", r"\1; --read-only only reads"),
    (r"; leave `parts` out", "; leave --parts out"),
    (r"\bdocs/((?:guide|operate|reference|design)/[\w-]+)\.md\b", r"`stateroom docs \1`"),
)


def reworded(message: str) -> str:
    """The message as somebody at a command line understands it."""
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message
