"""What type checkers must see of errors: each class has its own attributes, and a misspelt one is an error."""

from datetime import datetime
from typing import Any, assert_type

from stateroom import Execution, Page, Store, to_json
from stateroom.errors import InvalidArgument, LostLease, NotFound, StaleRevision, StoreError, WrongState


def attributes(store: Store) -> None:
    try:
        store.executions.get("e")
    except WrongState as error:
        assert_type(error.actual, str | None)
        assert_type(error.expected, frozenset[str])
        assert_type(error.terminal, bool | None)
        error.acutal  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    except StaleRevision as error:
        assert_type(error.actual, int | None)
    except LostLease as error:
        assert_type(error.holder, str | None)
        assert_type(error.expires_at, datetime | None)
    except InvalidArgument as error:
        assert_type(error.path, str | None)
        error.id  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    except NotFound as error:
        assert_type(error.id, str | None)
    except StoreError as error:
        assert_type(error.fields, dict[str, Any])
        assert_type(error.message, str)
        error.kind  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def records(store: Store) -> None:
    record = store.executions.get("e")
    assert_type(record.replace(message="m"), Execution)
    assert_type(record.to_dict(), dict[str, Any])
    assert_type(store.executions.query(), Page[Execution])
    assert_type(store.executions.query()[0], Execution)
    assert_type(store.executions.query()[1:], tuple[Execution, ...])
    assert_type(to_json(record), str)
