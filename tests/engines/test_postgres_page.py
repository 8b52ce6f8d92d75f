"""The SQL of docs/operate/postgresql.md runs, and shows what it says."""

import re
from pathlib import Path

import pytest

from engines.postgres_helpers import name_of
from stateroom.engine import Batch
from stateroom.engines.postgres import schema

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "postgresql.md"
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the pages are not beside the tests")


def statements(heading, name):
    """The statements of the SQL blocks under a heading, for another schema."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    text = "".join(re.findall(r"^ *```sql\n(.*?)^ *```$", section, re.M | re.S))
    text = re.sub(r"--.*", "", text).replace("stateroom.", f'"{name}".').replace("'stateroom'", f"'{name}'")
    text = text.replace(f'\'"{name}".', f"'{name}.")
    found = [each.strip() for each in text.split(";") if each.strip()]
    assert found, heading
    return found


def test_what_to_monitor_can_be_asked(url, server, opened):
    store = opened(url, parts=3)
    store.commit(1, Batch(write={b"a": b""}))
    answers = [server.execute(each).fetchall() for each in statements("What to monitor", name_of(url))]
    assert len(answers) == 5
    assert {row[0] for row in answers[0]} == {"rows", "parts"}
    assert answers[3] == [(0, 0), (1, 1), (2, 0)]


def test_the_format_of_a_store_can_be_looked_up(url, server, opened):
    opened(url, parts=3)
    (look,) = statements("Upgrade", name_of(url))
    assert dict(server.execute(look).fetchall()) == {b"format": schema.FORMAT, b"parts": 3}


def test_autovacuum_is_set(url, server, opened):
    opened(url)
    for each in statements("Growth, and autovacuum", name_of(url)):
        server.execute(each)
    (options,) = server.execute(
        f"""SELECT reloptions FROM pg_class WHERE oid = '"{name_of(url)}".rows'::regclass"""
    ).fetchone()
    assert "autovacuum_vacuum_scale_factor=0.02" in options
