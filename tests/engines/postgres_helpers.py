"""What the tests of the PostgreSQL engine share."""

from stateroom.engines.postgres import dsn


def name_of(url):
    """The schema of a url."""
    return dsn.parse(url).schema


def sessions(server, name):
    """The sessions of one application, as the server knows them."""
    return server.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY pid", [name]
    ).fetchall()
