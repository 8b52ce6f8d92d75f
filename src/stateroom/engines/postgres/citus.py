"""Spreading the two tables over the workers of a Citus cluster."""

import re

from stateroom.errors import InvalidArgument, StoreError

from . import function
from .dialogues import Dialogue
from .schema import lock
from .statements import BEGIN, COMMIT, ROLLBACK, Statement

EXTENSION = "SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'"
VERSION = "SELECT citus_version()"
DISTRIBUTED = "SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = '{table}'::regclass"
FUNCTION_DISTRIBUTED = (
    "SELECT FROM pg_catalog.pg_dist_object WHERE classid = 'pg_proc'::regclass"
    " AND objid = '{function}'::regprocedure AND distribution_argument_index IS NOT NULL"
)
# Making distributed objects uses parallel connections, which the statements after it could not share.
SEQUENTIAL = "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"
DISTRIBUTE = {
    "parts": "SELECT create_distributed_table('{s}.parts', 'part')",
    "rows": "SELECT create_distributed_table('{s}.rows', 'part', colocate_with => '{s}.parts')",
}
DISTRIBUTE_FUNCTION = (
    "SELECT create_distributed_function('{function}', 'part_', colocate_with => '{s}.parts', force_delegation => true)"
)
CUSTOM_PLANS = "ALTER FUNCTION {function} SET plan_cache_mode TO force_custom_plan"
PLAIN_PLANS = "ALTER FUNCTION {function} RESET plan_cache_mode"
REMOVE_LOCAL = "SELECT truncate_local_data_after_distributing_table('{table}')"

LEAKING = frozenset({(13, 2, 1), (13, 2, 2)})
"""Releases that keep every plan of a function's statement for ever, half a megabyte a commit, unless it is a custom
one."""


def distribute(url: str) -> None:
    """Distribute the tables of the store at `url`, which exists, by part, and make the function for commits.

    Safe while others write, and to repeat: it does what is missing, and what an interrupted one left. The url must
    reach the coordinator. Raises `NotFound` without a store and `InvalidArgument` without Citus.
    """
    from .carriers import finish
    from .engine import open_engine

    engine = open_engine(url, durability="full", create=False, parts=None)
    try:
        finish(engine._driver.run(lambda: spread(engine._driver.target.schema, engine._driver.target.where)))
    finally:
        engine.close()


def spread(schema: str, where: str) -> Dialogue[None]:
    """Do what is missing in one transaction; then remove what it left on the coordinator, in another.

    The second is repeated by whoever calls again, so a crash between them leaves nothing for good; in the first it
    would keep writers waiting for longer.
    """
    s = f'"{schema}"'
    (extension,) = yield [Statement(EXTENSION.encode())]
    if not extension.ntuples:
        raise InvalidArgument(
            f"{where} has no Citus: CREATE EXTENSION citus on every node first", what="url", outside=True
        )
    (version,) = yield [Statement(VERSION.encode())]
    release = _release((version.get_value(0, 0) or b"").decode())
    yield from _transaction(_distribute(schema, s, release))
    yield from _transaction(_remove_local(s))


def _transaction(work: Dialogue[None]) -> Dialogue[None]:
    yield [BEGIN]
    try:
        yield from work
        yield [COMMIT]
    except StoreError:
        yield [ROLLBACK]
        raise


def _distribute(schema: str, s: str, release: tuple[int, ...]) -> Dialogue[None]:
    yield [Statement(SEQUENTIAL.encode()), lock(schema)]  # two at once: the second finds nothing to do
    for table, text in DISTRIBUTE.items():
        (existing,) = yield [Statement(DISTRIBUTED.format(table=f"{s}.{table}").encode())]
        if not existing.ntuples:
            yield [Statement(text.format(s=s).encode())]
    names = {"s": s, "function": function.SIGNATURE.format(s=s)}
    yield [function.create(schema)]
    yield [Statement((CUSTOM_PLANS if release in LEAKING else PLAIN_PLANS).format(**names).encode())]
    (existing,) = yield [Statement(FUNCTION_DISTRIBUTED.format(**names).encode())]
    if not existing.ntuples:
        yield [Statement(DISTRIBUTE_FUNCTION.format(**names).encode())]
    yield [function.remember(schema)]


def _remove_local(s: str) -> Dialogue[None]:
    for table in DISTRIBUTE:
        yield [Statement(REMOVE_LOCAL.format(table=f"{s}.{table}").encode())]


def _release(text: str) -> tuple[int, ...]:
    """Return the numbers in "Citus 13.2.2 on x86_64-..."."""
    numbers = re.search(r"Citus (\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, numbers.groups())) if numbers else ()
