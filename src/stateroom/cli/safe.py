"""Stored text on somebody's terminal: what could steer the terminal, or turn the line around, is shown escaped."""

import re

# C0 and C1 controls, marks that change the direction of writing, separators of lines, tags, and halves of surrogates.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str) -> str:
    r"""The text with every control character escaped as Python would write it: ``\x1b``, ``\u202e``, ``\n``."""
    return _CONTROLS.sub(_escape, text)


def safe_lines(text: str) -> str:
    """As `safe`, for text of several lines: line ends are kept."""
    return "\n".join(map(safe, text.split("\n")))


def safe_json(document: str) -> str:
    """A JSON document whose strings hold no control characters, written so that it still reads as the same value."""
    return "\n".join(_CONTROLS.sub(_json_escape, line) for line in document.split("\n"))


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    number = ord(character)
    if character in _NAMES:
        return _NAMES[character]
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


_PASSWORD = re.compile(r"^([\w+.-]+:(?://)?[^:/@]*:).*@", re.DOTALL)
_OPTION = re.compile(r"(\b(?:ssl)?password\s*=\s*)('[^']*'|[^&\s]*)", re.IGNORECASE)


def masked(url: str) -> str:
    """The url without any part of its password, also where it is not written as a url should be."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", url))
