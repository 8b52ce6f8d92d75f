"""Values to bytes and back, checksums, and encryption at rest."""

from .codec import Codec, default, register
from .crypto import KeyRing
from .failure import ErrorRecord, describe
from .plain import to_json
from .raw import Raw, show
from .seal import SEAL_BYTES, seal, unseal

__all__ = [
    "SEAL_BYTES", "Codec", "ErrorRecord", "KeyRing", "Raw",
    "default", "describe", "register", "seal", "show", "to_json", "unseal",
]  # fmt: skip
