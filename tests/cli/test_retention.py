"""retention list, set, plan and run."""

import stateroom
from stateroom.retention.policy import AGES, rules

from .conftest import Run


def test_a_plan_removes_nothing_and_a_run_does(run: Run, url: str) -> None:
    assert run("--json", "retention", "list").json == []
    assert run("retention", "set", "executions", "--terminal-older-than", "0s").code == 0
    assert [one["family"] for one in run("--json", "retention", "list").json] == ["executions"]
    (due,) = run("--json", "retention", "plan").json["items"]
    assert (due["family"], due["count"], due["examples"]) == ("executions", 1, ["order-17/mail"])
    assert "order-17/mail" in run("retention", "plan").out
    with stateroom.open(url) as store:
        assert store.executions.find("order-17/mail") is not None
    assert run("--json", "retention", "run").json["families"]["executions"] == 1
    assert run("retention", "run").lines[-1] == "done"
    with stateroom.open(url) as store:
        assert store.executions.find("order-17/mail") is None
        assert store.executions.find("order-17/ship") is not None


def test_a_policy_that_makes_no_sense_is_usage(run: Run) -> None:
    assert run("retention", "set", "executions").code == 2
    assert run("retention", "set", "nothing", "--older-than", "1d").code == 2
    assert run("retention", "set", "executions", "--older-than", "soon").code == 2
    assert run("--json", "retention", "list").json == []


def test_a_plan_says_which_checkpoint_holds_the_feed_back(run: Run) -> None:
    run("checkpoint", "set", "mailer", "beginning")
    run("retention", "set", "feed", "--older-than", "0s")
    ran = run("retention", "plan")
    assert ran.code == 0
    assert any(line.startswith("mailer") for line in ran.lines)


def test_the_help_names_every_family_and_what_a_policy_may_say(run: Run) -> None:
    words = run("retention", "set", "--help").out.replace("│", " ").split()
    said = {word.strip(",().:") for word in words}
    assert said >= set(rules())
    assert said >= {"--" + rule.replace("_", "-") for rule in (*AGES, "keep_latest")}


def test_a_policy_can_be_forgotten(run: Run) -> None:
    run("retention", "set", "results", "--keep-latest", "3")
    assert run("--json", "retention", "list").json[0]["keep_latest"] == 3
    assert run("retention", "delete", "results", "--yes").code == 0
    assert run("--json", "retention", "list").json == []
    assert run("retention", "delete", "results", "--yes").code == 1
