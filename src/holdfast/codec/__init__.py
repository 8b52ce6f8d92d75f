"""Values to bytes and back, checksums, and encryption at rest."""

from .codec import Codec, default, register
from .seal import seal, unseal

__all__ = ["Codec", "default", "register", "seal", "unseal"]
