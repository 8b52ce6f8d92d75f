"""Spreading the two tables over a Citus cluster."""

from stateroom.errors import InvalidArgument

from . import dsn
from .plans import Plan
from .statements import Statement

TABLE_KIND = "SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'"
DISTRIBUTED = "SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrel = '{s}.parts'::regclass"
DISTRIBUTE = (
    "SELECT create_distributed_table('{s}.parts', 'part')",
    "SELECT create_distributed_table('{s}.rows', 'part', colocate_with => '{s}.parts')",
)


def distribute(url: str) -> None:
    """Distribute the tables of the store at `url`, which exists, by part. Does nothing when they already are.

    The url must reach the coordinator. Raises `NotFound` without a store and `InvalidArgument` without Citus.
    """
    from .engine import open_engine

    engine = open_engine(url, durability="full", create=False, parts=None)
    try:
        engine._run(lambda: _distribute(dsn.parse(url)))
    finally:
        engine.close()


def _distribute(target: dsn.Target) -> Plan[None]:
    schema = f'"{target.schema}"'
    (extension,) = yield [Statement(TABLE_KIND.encode())]
    if not extension.ntuples:
        raise InvalidArgument(f"{target.where} has no Citus: CREATE EXTENSION citus on every node first", what="url")
    (done,) = yield [Statement(DISTRIBUTED.format(s=schema).encode())]
    for text in () if done.ntuples else DISTRIBUTE:
        yield [Statement(text.format(s=schema).encode())]
