"""Values to bytes and back, checksums, and encryption at rest."""

from .codec import Codec, default, register
from .crypto import KeyRing
from .failure import ErrorRecord, describe
from .seal import SEAL_BYTES, seal, unseal
from .unpacking import Raw

__all__ = ["Codec", "ErrorRecord", "KeyRing", "Raw", "SEAL_BYTES", "default", "describe", "register", "seal", "unseal"]
