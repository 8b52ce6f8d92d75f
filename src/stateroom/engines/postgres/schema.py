"""The two tables, made and migrated under a lock that needs no session.

``parts`` has one row a part: the version of its last commit and a random number of that commit's writer. ``rows`` has
everything else. What is known about the whole database (format, number of parts) stands in ``rows`` under part -1.
"""

from .statements import META_PART, Statement

FORMAT = 2
"""The format this version writes; it reads this one and migrates those since `FIRST_FORMAT`."""
FIRST_FORMAT = 2
"""Format 1 was written before the project's rename, and never by a released version."""

DEFAULT_PARTS = 16
MOST_PARTS = 4096

CREATE_SCHEMA = 'CREATE SCHEMA "{schema}"'
SCHEMA_EXISTS = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{schema}'"

# A part's row is rewritten by each of its commits; room in the page keeps its index entry where it is.
CREATE = (
    "CREATE TABLE {s}.parts (part int4 NOT NULL, version bigint NOT NULL, writer bigint NOT NULL,"
    " PRIMARY KEY (part)) WITH (fillfactor = 20)",
    "CREATE TABLE {s}.rows (part int4 NOT NULL, key bytea NOT NULL, value bytea NOT NULL, version bigint NOT NULL,"
    " PRIMARY KEY (part, key))",
    # Values are small and hot or compressed above us; trying to compress them again costs a commit its time.
    "ALTER TABLE {s}.rows ALTER COLUMN value SET STORAGE EXTERNAL",
    "INSERT INTO {s}.parts (part, version, writer) SELECT n, 0, 0 FROM generate_series({meta}, {last}) AS n",
    "INSERT INTO {s}.rows (part, key, value, version) VALUES"
    " ({meta}, 'format', int8send({format}), 0), ({meta}, 'parts', int8send({parts}), 0)",
)

# Whoever migrates holds this row to the end of its transaction; the others wait and then find nothing to do.
LOCK = "SELECT version FROM {s}.parts WHERE part = {meta} FOR UPDATE"
SET_FORMAT = "UPDATE {s}.rows SET value = int8send({format}) WHERE part = {meta} AND key = 'format'"

SET_VIEWS = (
    "INSERT INTO {s}.rows (part, key, value, version) VALUES ({meta}, 'views', int8send({number}), 0)"
    " ON CONFLICT (part, key) DO UPDATE SET value = excluded.value"
)

NO_RIGHT = frozenset({"42501"})
"""The role may use the tables and make nothing: then there are no views for people."""

MIGRATIONS: dict[int, tuple[str, ...]] = {}
"""Format to the statements that lead from it to the next one."""

RACE = frozenset({"23505", "42P06", "42P07", "40001", "40P01", "XX000"})
"""Codes of a creation that met another one: by then the other has committed, or failed, so look again."""

ABSENT = frozenset({"42P01", "3F000"})
"""No such table, no such schema."""


def create(schema: str, parts: int, *, schema_exists: bool) -> list[Statement]:
    """The transaction's statements that make the tables.

    Two creations at once exclude each other by the unique names in the system catalogue: the second one waits there
    for the first, then fails with one of `RACE`. That needs neither a table to lock nor a session.
    """
    names = {"s": f'"{schema}"', "meta": META_PART, "last": parts - 1, "format": FORMAT, "parts": parts}
    first = [] if schema_exists else [CREATE_SCHEMA.format(schema=schema)]
    return [Statement(text.encode()) for text in (*first, *(text.format(**names) for text in CREATE))]


def exists(schema: str) -> Statement:
    """One row if the schema is there: CREATE SCHEMA IF NOT EXISTS would ask for a right we may not need."""
    return Statement(SCHEMA_EXISTS.format(schema=schema).encode())


def lock(schema: str) -> Statement:
    return Statement(LOCK.format(s=f'"{schema}"', meta=META_PART).encode())


def migrate(schema: str, format_number: int) -> list[Statement]:
    """The statements that lead from format `format_number` to this one."""
    names = {"s": f'"{schema}"', "meta": META_PART, "format": FORMAT}
    steps = [text for number in range(format_number, FORMAT) for text in MIGRATIONS[number]]
    return [Statement(text.format(**names).encode()) for text in (*steps, SET_FORMAT)]


def remember_views(schema: str, number: int) -> Statement:
    """Return what says that the views of this number are there."""
    return Statement(SET_VIEWS.format(s=f'"{schema}"', meta=META_PART, number=number).encode())
