"""The front doors: `Store` and `AsyncStore`, transactions as users see them, opening and moving databases."""
