"""What the tests of the PostgreSQL engine share."""

import psycopg

from stateroom.engines.postgres import dsn, function
from stateroom.engines.postgres.carriers import finish


def name_of(url):
    """The schema of a url."""
    return dsn.parse(url).schema


def sessions(server, name):
    """The sessions of one application, as the server knows them."""
    return server.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY pid", [name]
    ).fetchall()


def quiet(store):
    """No hints: they would be recorded, or counted, among the messages of a commit."""
    store._driver.notifier.committed = lambda part, version: None


def together(store, part, batches):
    """The outcomes of batches that share a transaction."""
    return finish(store._driver.together(part, batches))


def add_function(url):
    """Make the function that commits on a cluster, in a store on one server."""
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        for statement in (function.create(name_of(url)), function.remember(name_of(url))):
            connection.execute(statement.sql)
