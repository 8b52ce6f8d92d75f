"""The database as a whole: check, copy, back up, re-encrypt, count, and describe it to SQL users."""
