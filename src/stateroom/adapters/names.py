"""Names in the store for texts that other programs chose: any length, any character."""

from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

from ..errors import InvalidArgument

SAFE = " !#$&'()*+,-.:;<=>?@[]^_`{|}~"
"""Characters that stay as they are; a slash does not, which would end the root."""


@lru_cache(maxsize=4096)
def stored_key(text: str, most: int) -> str:
    """A name for any text, of at most so many bytes; different texts have different names. A long one is its digest."""
    try:
        key = quote(text, safe=SAFE)
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{text!r} cannot be a name: it is no Unicode text", what="name", value=text) from error
    if not key.strip() or key == ".":
        key = "".join(f"%{byte:02X}" for byte in text.encode()) or "%"
    if len(key) > most:
        key = "%%" + blake2b(text.encode(), digest_size=32).hexdigest()
    return key
