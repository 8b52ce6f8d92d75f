"""checkpoint list and set."""

import stateroom

from .conftest import Run


def test_checkpoints_are_listed_and_set(run: Run, url: str) -> None:
    assert run("--json", "checkpoint", "list").json == []
    position = run("--json", "feed", "read", "--limit", "1").json["next"]
    assert run("checkpoint", "set", "mailer", position).code == 0
    assert run("checkpoint", "set", "other", "beginning").code == 0
    with stateroom.open(url) as store:
        assert store.checkpoints.get("mailer") == position
        assert store.checkpoints.get("other") == stateroom.BEGINNING
    listed = run("--json", "checkpoint", "list").json
    assert {item["name"]: item["position"] for item in listed} == {"mailer": position, "other": stateroom.BEGINNING}
    assert run("checkpoint", "set", " ", "beginning").code == 2
