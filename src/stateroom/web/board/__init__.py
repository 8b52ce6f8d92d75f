"""The board: pages for people over the same answers as the JSON API, rendered here, readable without script."""

from .routes import routes_of

__all__ = ["routes_of"]
