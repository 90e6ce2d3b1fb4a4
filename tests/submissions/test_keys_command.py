"""``python -m submissions.keys``: it creates, lists and revokes keys, and shows the audit log."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Engine

from dev.ports import HOST, free_port
from dev.stack import ROOT
from submissions.callers import parse_key
from tests.db.rows import execute

KEY = re.compile(r"mod_[a-z2-7]{12}_[A-Za-z0-9_-]{43}")


def keys(database: Engine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "submissions.keys", *arguments],
        env={**os.environ, "DATABASE_URL": database.url.render_as_string(hide_password=False)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def documents(database: Engine, *arguments: str) -> Any:
    done = keys(database, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_key_is_shown_once_and_only_its_hash_is_stored(database: Engine) -> None:
    created = documents(
        database,
        *("create", "магазин", "--scope", "items", "--scope", "submit", "--rate", "100/m"),
        *("--quota", "5000", "--expires", "90d", "--by", "somebody"),
    )
    key = parse_key(created["key"])
    assert key is not None
    assert created["key_id"] == key.key_id
    assert created["scopes"] == ["submit", "items"]
    assert (created["rate_requests"], created["rate_window_s"], created["quota_per_day"]) == (100, 60, 5000)
    secret = created["key"].rpartition("_")[2]
    rows = execute(database, "SELECT CAST(k AS text) FROM api_keys AS k") + execute(
        database, "SELECT CAST(l AS text) FROM audit_log AS l"
    )
    assert all(secret not in str(row) for row in rows)
    [listed] = documents(database, "list")["keys"]
    assert {**listed, "key": created["key"]} == created
    assert "digest" not in listed


def test_without_json_the_first_line_is_the_key(database: Engine) -> None:
    done = keys(database, "create", "shop")
    assert KEY.fullmatch(done.stdout.splitlines()[0])
    assert not KEY.search(keys(database, "list").stdout)


def test_a_revoked_key_stays_listed_with_the_reason(database: Engine) -> None:
    key_id = documents(database, "create", "shop")["key_id"]
    assert documents(database, "revoke", key_id, "--reason", "lost") == {"key_id": key_id, "is_revoked": True}
    [listed] = documents(database, "list")["keys"]
    assert (listed["state"], listed["reason"]) == ("revoked", "lost")
    again = keys(database, "revoke", key_id, "--reason", "lost")
    assert again.returncode == 1
    assert key_id in again.stderr
    actions = [entry["action"] for entry in documents(database, "audit")["entries"]]
    assert actions == ["revoke_key", "create_key"]


def test_a_client_has_any_number_of_keys(database: Engine) -> None:
    ids = {documents(database, "create", name)["client_id"] for name in ("shop", "shop", " shop ")}
    assert len(ids) == 1
    assert documents(database, "create", "other")["client_id"] not in ids


@pytest.mark.parametrize(
    "arguments",
    [
        ["create"],
        ["create", ""],
        ["create", "a\nb"],
        ["create", "shop", "--scope", "everything"],
        ["create", "shop", "--rate", "fast"],
        ["create", "shop", "--rate", "0/s"],
        ["create", "shop", "--quota", "-1"],
        ["create", "shop", "--expires", "tomorrow"],
        ["create", "shop", "--quota", "1000000000000000"],
        ["create", "shop", "--expires", "2027-01-31T12:00"],
        ["create", "shop", "--expires", "2020-01-31T12:00Z"],
        ["create", "shop", "--expires", "9999-12-31T12:00Z"],
        ["revoke", "abc"],
        ["audit", "--task", "1", "--item", "1"],
        ["audit", "--task", "x"],
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_changed(database: Engine, arguments: list[str]) -> None:
    done = keys(database, *arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert execute(database, "SELECT count(*) FROM clients") == [(0,)]


def test_without_postgresql_the_command_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "submissions.keys", "list"],
        env={**os.environ, "DATABASE_URL": f"postgresql://user@{HOST}:{free_port()}/moderation"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Not done: " in done.stderr
