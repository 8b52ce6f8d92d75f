"""The function that makes a whole commit in one call, for tables that are spread over a cluster.

The engine's statements run on distributed tables as they are, but each is planned and sent on by itself, which costs
the coordinator more than the commit. A call of this function goes on as one, to the worker that has the part. One
server keeps the statements: there the function is slower for all but the smallest batches.
"""

from collections.abc import Sequence

from stateroom.engine import Batch
from stateroom.limits import INT64_MAX

from .statements import ADD, META_PART, Statement, bigints, byteas, int4, int8, integers, smallints

NUMBER = 1
"""Raised whenever the function changes; a database that has another one is used with statements."""

MOST_ROWS = 64
"""In a larger batch each row costs more than a statement for all of them saves."""

_CLEAR, _REMOVE, _ADD, _WRITE = -4, -3, -2, -1
_TYPES = "int4, int4[], bytea[], int8[], int4[], int2[], bytea[], bytea[], bool"
SIGNATURE = f"{{s}}.commit({_TYPES})"

CREATE = (
    """CREATE OR REPLACE FUNCTION {s}.commit(part_ int4, eends int4[], ekeys bytea[], evers int8[], oends int4[],
 kinds int2[], okeys bytea[], ovals bytea[], flush bool, OUT versions int8[], OUT bad bytea[], OUT actual int8[])
 LANGUAGE plpgsql AS $fn$
#variable_conflict use_column
DECLARE
 n int4 := cardinality(oends); v int8; b int4; e int4 := 1; o int4 := 1; k bytea; x bytea; have int8;
 refused int4 := 0; fits bool;
BEGIN
 IF NOT flush THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
 UPDATE {s}.parts SET version = version + n WHERE part = part_ RETURNING version - n INTO v;
 IF v IS NULL THEN RETURN; END IF;
 FOR b IN 1 .. n LOOP
  fits := true;
  WHILE fits AND e <= eends[b] LOOP
   k := ekeys[e];
   SELECT r.version INTO have FROM {s}.rows AS r WHERE r.part = part_ AND r.key = k;
   IF coalesce(have, 0) <> evers[e] THEN
    fits := false; refused := refused + 1; bad[b] := k; actual[b] := coalesce(have, 0); versions[b] := NULL;
   END IF;
   e := e + 1;
  END LOOP;
  e := eends[b] + 1;
  IF NOT fits THEN o := oends[b] + 1; CONTINUE; END IF;
  v := v + 1; versions[b] := v;
  WHILE o <= oends[b] LOOP
   k := okeys[o]; x := ovals[o];
   IF kinds[o] >= 0 THEN k := k || int8send(v) || int2send(kinds[o]); END IF;
   IF kinds[o] >= -1 THEN
    INSERT INTO {s}.rows AS r (part, key, value, version) VALUES (part_, k, x, v)
     ON CONFLICT (part, key) DO UPDATE SET version = excluded.version, value = excluded.value;
   ELSIF kinds[o] = -2 THEN
    INSERT INTO {s}.rows AS r (part, key, value, version) VALUES (part_, k, x, v)
     ON CONFLICT (part, key) DO UPDATE SET version = excluded.version, value = """
    + ADD
    + """;
   ELSIF kinds[o] = -3 THEN DELETE FROM {s}.rows WHERE part = part_ AND key = k;
   ELSE DELETE FROM {s}.rows WHERE part = part_ AND key >= k AND key < x;
   END IF;
   o := o + 1;
  END LOOP;
 END LOOP;
 IF refused > 0 THEN UPDATE {s}.parts SET version = v WHERE part = part_; END IF;
END $fn$"""
)
"""`eends` and `oends` say where each batch's expectations and changes end; a kind of 0 or more is the index of an
appended row. Keys and values are taken out of their arrays one by one: Citus turns every variable of a statement into
text, whole arrays too. The part's row is locked first, and gets a version for each batch; those that are refused give
theirs back."""

CALL = "SELECT versions, bad, actual FROM {s}.commit({arguments})"

REMEMBER = (
    "INSERT INTO {s}.rows (part, key, value, version) VALUES ({meta}, 'commit', int8send({number}), 0)"
    " ON CONFLICT (part, key) DO UPDATE SET value = excluded.value"
)


def create(schema: str) -> Statement:
    """Return what makes the function, or makes it anew."""
    return Statement(CREATE.replace("{s}", f'"{schema}"').encode())


def remember(schema: str) -> Statement:
    """Return what says that the function is there, to whoever opens the store from now on."""
    return Statement(REMEMBER.format(s=f'"{schema}"', meta=META_PART, number=NUMBER).encode())


def call(schema: str, part: int, batches: Sequence[Batch], *, flush: bool) -> Statement:
    """Return the call that commits `batches`, each as if it came alone, in one statement."""
    places = ", ".join(f"${place}::{kind.strip()}" for place, kind in enumerate(_TYPES.split(","), 1))
    sql = CALL.format(s=f'"{schema}"', arguments=places).encode()
    expect_ends: list[int] = []
    change_ends: list[int] = []
    expected: list[tuple[bytes, int]] = []
    changes: list[tuple[int, bytes, bytes]] = []
    for batch in batches:
        # In the order of their keys, so that the one that is reported is the smallest.
        expected += [(key, min(max(version, -1), INT64_MAX)) for key, version in sorted(batch.expect.items())]
        changes += _changes(batch)
        expect_ends.append(len(expected))
        change_ends.append(len(changes))
    values = (
        int4(part),
        integers(expect_ends),
        byteas([key for key, _ in expected]),
        bigints([version for _, version in expected]),
        integers(change_ends),
        smallints([kind for kind, _, _ in changes]),
        byteas([key for _, key, _ in changes]),
        byteas([value for _, _, value in changes]),
        b"\x01" if flush else b"\x00",
    )
    return Statement(sql, values)


def _changes(batch: Batch) -> list[tuple[int, bytes, bytes]]:
    """Return (kind, key, value) of each change, in the order of the contract: clear, write, add, append."""
    changes = [(_CLEAR, start, stop) for start, stop in batch.clear]
    for key, value in batch.write.items():
        changes.append((_REMOVE, key, b"") if value is None else (_WRITE, key, value))
    changes += [(_ADD, key, int8(amount)) for key, amount in batch.add.items()]
    changes += [(index, prefix, value) for index, (prefix, value) in enumerate(batch.append)]
    return changes


def fits(batch: Batch) -> bool:
    """Return whether a batch is small enough for the function."""
    return len(batch.write) + len(batch.add) + len(batch.append) + len(batch.clear) <= MOST_ROWS
