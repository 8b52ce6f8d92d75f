"""Read-only views for people who ask in SQL: one for each kind of record that somebody above describes.

The engine knows bytes. What a key and a value mean comes as `View`s from above, and the layout of a sealed row is that
of ``docs/design/keys.md``. Encrypted, chunked and unreadable values show as NULL beside what the key says.
"""

from collections.abc import Iterator, Sequence

from stateroom.engine import View

READ_INT = """
CREATE OR REPLACE FUNCTION {s}.msgpack_number(data bytea, at int, size int, signed boolean) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT trunc(CASE WHEN signed AND get_byte(data, at) > 127 THEN n - power(256::numeric, size) ELSE n END)
  FROM (SELECT sum(get_byte(data, at + i) * power(256::numeric, size - 1 - i)) AS n
        FROM generate_series(0, size - 1) AS i) AS digits
$$
"""

READ_FLOAT = """
CREATE OR REPLACE FUNCTION {s}.msgpack_float(data bytea, at int, size int) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  bits numeric := {s}.msgpack_number(data, at, size, false);
  wide int := CASE size WHEN 8 THEN 52 ELSE 23 END;
  bias int := CASE size WHEN 8 THEN 1023 ELSE 127 END;
  most int := CASE size WHEN 8 THEN 2047 ELSE 255 END;
  mantissa numeric := bits % power(2::numeric, wide);
  exponent int := (div(bits, power(2::numeric, wide)) % (most + 1))::int;
  negative boolean := get_byte(data, at) > 127;
  found float8;
BEGIN
  IF exponent = most THEN
    RETURN to_jsonb(CASE WHEN mantissa > 0 THEN 'NaN' WHEN negative THEN '-Infinity' ELSE 'Infinity' END);
  ELSIF exponent = 0 THEN
    found := mantissa::float8 * power(2::float8, 1 - bias - wide);
  ELSE
    found := (mantissa + power(2::numeric, wide))::float8 * power(2::float8, exponent - bias - wide);
  END IF;
  RETURN to_jsonb(CASE WHEN negative THEN -found ELSE found END);
END $$
"""

READ = """
CREATE OR REPLACE FUNCTION {s}.msgpack_read(data bytea, INOUT at int, OUT value jsonb)
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  b int := get_byte(data, at);
  n int;
  tag int;
  kind text;
  part jsonb;
  field text;
  items jsonb[] := '{{}}';
  fields jsonb := '{{}}';
BEGIN
  at := at + 1;
  IF b < 128 THEN value := to_jsonb(b); RETURN;
  ELSIF b >= 224 THEN value := to_jsonb(b - 256); RETURN;
  ELSIF b < 144 THEN kind := 'map'; n := b - 128;
  ELSIF b < 160 THEN kind := 'array'; n := b - 144;
  ELSIF b < 192 THEN kind := 'text'; n := b - 160;
  ELSIF b = 192 THEN value := 'null'::jsonb; RETURN;
  ELSIF b = 194 THEN value := 'false'::jsonb; RETURN;
  ELSIF b = 195 THEN value := 'true'::jsonb; RETURN;
  ELSIF b IN (202, 203) THEN
    n := CASE b WHEN 202 THEN 4 ELSE 8 END;
    value := {s}.msgpack_float(data, at, n); at := at + n; RETURN;
  ELSIF b BETWEEN 204 AND 211 THEN
    n := (1 << ((b - 204) % 4));
    value := to_jsonb({s}.msgpack_number(data, at, n, b >= 208)); at := at + n; RETURN;
  ELSIF b BETWEEN 212 AND 216 THEN kind := 'ext'; n := 1 << (b - 212);
  ELSE
    tag := CASE WHEN b IN (196, 199, 217) THEN 1 WHEN b IN (197, 200, 218, 220, 222) THEN 2 ELSE 4 END;
    n := {s}.msgpack_number(data, at, tag, false); at := at + tag;
    kind := CASE WHEN b < 199 THEN 'bytes' WHEN b < 202 THEN 'ext' WHEN b < 220 THEN 'text'
                 WHEN b < 222 THEN 'array' ELSE 'map' END;
  END IF;
  IF kind = 'text' THEN
    IF position('\\x00'::bytea IN substring(data FROM at + 1 FOR n)) > 0 THEN
      value := jsonb_build_object('$text', encode(substring(data FROM at + 1 FOR n), 'hex'));
    ELSE
      value := to_jsonb(convert_from(substring(data FROM at + 1 FOR n), 'UTF8'));
    END IF;
    at := at + n;
  ELSIF kind = 'bytes' THEN
    value := jsonb_build_object('$bytes', encode(substring(data FROM at + 1 FOR n), 'hex')); at := at + n;
  ELSIF kind = 'ext' THEN
    tag := get_byte(data, at); at := at + 1;
    IF tag IN (1, 2, 3) THEN
      SELECT r.value INTO value FROM {s}.msgpack_read(data, at) AS r;
    ELSIF tag IN (14, 20, 21) THEN
      SELECT jsonb_build_object('$' || tag, r.value) INTO value FROM {s}.msgpack_read(data, at) AS r;
    ELSE
      value := jsonb_build_object('$' || tag, encode(substring(data FROM at + 1 FOR n), 'escape'));
    END IF;
    at := at + n;
  ELSIF kind = 'array' THEN
    FOR i IN 1..n LOOP
      SELECT r.at, r.value INTO at, part FROM {s}.msgpack_read(data, at) AS r;
      items := items || part;
    END LOOP;
    value := to_jsonb(items);
  ELSE
    FOR i IN 1..n LOOP
      SELECT r.at, r.value #>> '{{}}' INTO at, field FROM {s}.msgpack_read(data, at) AS r;
      SELECT r.at, r.value INTO at, part FROM {s}.msgpack_read(data, at) AS r;
      fields := fields || jsonb_build_object(coalesce(field, 'null'), part);
    END LOOP;
    value := fields;
  END IF;
END $$
"""

FIELDS = """
CREATE OR REPLACE FUNCTION {s}.record_fields(value bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  at int := 16;
  found jsonb;
BEGIN
  IF get_byte(value, 5) & 1 = 1 THEN at := at + 8; END IF;
  IF get_byte(value, at) <> 0 THEN RETURN NULL; END IF;
  at := at + 1;
  IF get_byte(value, at) = 193 THEN
    IF get_byte(value, at + 1) <> 0 THEN RETURN NULL; END IF;
    at := at + 2;
  END IF;
  SELECT r.value INTO found FROM {s}.msgpack_read(value, at) AS r;
  RETURN found;
EXCEPTION WHEN others THEN
  RETURN NULL;
END $$
"""

_TYPES = {
    "text": "f ->> {at}",
    "bigint": "(f ->> {at})::bigint",
    "time": "'epoch'::timestamptz + (f ->> {at})::bigint * interval '1 microsecond'",
    "jsonb": "f -> {at}",
}


def statements(schema: str, views: Sequence[View]) -> Iterator[str]:
    """Return what makes the functions and views, one statement each."""
    quoted = f'"{schema}"'
    for text in (READ_INT, READ_FLOAT, READ, FIELDS):
        yield text.format(s=quoted)
    for view in views:
        yield f'DROP VIEW IF EXISTS {quoted}."{view.name}"'
        yield _view(quoted, view)


def _view(s: str, view: View) -> str:
    columns = ["convert_from(substring(key FROM 1 FOR z - 1), 'UTF8') AS namespace"]
    columns += _key_columns(view.key)
    columns += [f'{_TYPES[kind].format(at=at)} AS "{name}"' for name, at, kind in view.columns]
    tag = view.tag.hex()
    return (
        f'CREATE VIEW {s}."{view.name}" AS SELECT {", ".join(columns)}, part, version FROM ('
        f"SELECT part, key, version, position('\\x00'::bytea IN key) AS z, {s}.record_fields(value) AS f"
        f" FROM {s}.rows WHERE part >= 0"
        f" AND substring(key FROM position('\\x00'::bytea IN key) + 1 FOR 2) = '\\x{tag}'::bytea) AS records"
    )


def _key_columns(names: Sequence[str]) -> list[str]:
    """Columns for the names in a key, each ended by a NUL, and for the 8 bytes of its numbers."""
    columns: list[str] = []
    tail = "substring(key FROM z + 3)"
    for name in names:
        if name.startswith("#"):
            columns.append(f"('x' || encode(substring({tail} FROM 1 FOR 8), 'hex'))::bit(64)::bigint AS \"{name[1:]}\"")
            tail = f"substring({tail} FROM 9)"
        else:
            end = f"position('\\x00'::bytea IN {tail})"
            columns.append(f"convert_from(substring({tail} FROM 1 FOR {end} - 1), 'UTF8') AS \"{name}\"")
            tail = f"substring({tail} FROM {end} + 1)"
    return columns
