"""A verdict is kept with its model, thresholds and decision, and beside it what a shadow model says."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.engine import transaction
from db.items import ad_hash
from db.judgements import Judgement, read_judgement, write_verdicts
from db.submissions import Outcome
from dev.stack import ROOT
from scoring import Ad, Model, Thresholds, Verdict
from tasks.judging import judge, log_differences
from tests.db.rows import execute, load_sample_ads, submit
from tests.service import Worker
from tests.waiting import wait_until

AD = Ad(1, 1, True, "a", "b", category=12, images_qty=0)


class Says(Model):
    """A model of one opinion."""

    def __init__(self, version: str, probability: float | None) -> None:
        thresholds = {None: Thresholds(0.1, 0.9), 12: Thresholds(0.02, 0.98)}
        super().__init__(None, version=version, threshold=0.5, thresholds=thresholds)
        self.probability = probability

    def score(self, ads: Sequence[Ad]) -> list[Verdict]:
        if self.probability is None:
            raise RuntimeError("on trial, and found wanting")
        return [Verdict(self.probability >= 0.5, self.probability) for _ in ads]


def judged(
    engine: Engine, model: Model, *, shadow: Model | None = None, probability: float = 0.95, ad: Ad = AD
) -> Judgement | None:
    load_sample_ads(engine, 1)
    [message_id] = submit(engine, [1])
    outcome = Outcome(message_id, 0, 1, probability >= 0.5, probability)
    rows = judge(model, [outcome], {1: ad}, shadow)
    with transaction(engine) as connection:
        log_differences([outcome], rows, write_verdicts(connection, [outcome], rows))
        return read_judgement(connection, 1)


def test_the_thresholds_of_the_ads_category_are_kept_and_decide(database: Engine) -> None:
    kept = judged(database, Says("v1", 0.95))
    assert kept is not None
    assert (kept.model_version, kept.approve_below, kept.reject_from) == ("v1", 0.02, 0.98)
    assert kept.decision == "review"
    assert kept.shadow_version is None


def test_what_the_shadow_says_is_kept_beside_and_a_difference_is_logged(
    database: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="tasks.judging"):
        kept = judged(database, Says("v1", 0.95), shadow=Says("v2", 0.01), ad=replace(AD, category=5))
    assert kept is not None
    assert (kept.decision, kept.shadow_version, kept.shadow_decision) == ("reject", "v2", "approve")
    assert kept.shadow_is_violation is False
    assert "Shadow model v2 would approve item 1 (0.010) where v1 decided reject (0.950)" in caplog.text
    assert execute(database, "SELECT is_violation, probability FROM moderation_results") == [(True, 0.95)]


def test_a_shadow_that_fails_harms_no_verdict(database: Engine, caplog: pytest.LogCaptureFixture) -> None:
    kept = judged(database, Says("v1", 0.95), shadow=Says("v2", None))
    assert kept is not None
    assert kept.shadow_version is None
    assert "Shadow model v2 failed on a batch of 1 ads" in caplog.text


def test_the_hash_of_the_scored_ad_is_kept(database: Engine) -> None:
    row = judged(database, Says("text-1+a", 0.95))
    assert row is not None
    assert row.ad_hash == ad_hash(AD)
    assert row.ad_hash != ad_hash(replace(AD, name="b"))


def test_a_worker_keeps_how_it_judged_and_compares_the_shadow_it_was_given(
    start_worker: Callable[..., Worker], own_database: Engine, server_home: Callable[[], Path]
) -> None:
    home = server_home()
    for name in ("model.pkl", "model.json"):
        shutil.copy(ROOT / name, home / f"shadow{Path(name).suffix}")
    worker = start_worker(SHADOW_MODEL_PATH=str(home / "shadow.pkl"))
    version = json.loads((ROOT / "model.json").read_text())["version"]
    execute(own_database, "INSERT INTO moderation_results (item_id) VALUES (1)")  # the relay sends it

    def kept() -> Judgement | None:
        with transaction(own_database) as connection:
            return read_judgement(connection, 1)

    judgement = wait_until(kept, deadline_s=60, what="the judgement of task 1")
    assert (judgement.model_version, judgement.shadow_version) == (version, version)
    assert judgement.decision == judgement.shadow_decision
    assert f"Shadow model {version} is loaded" in worker.child.tail(100_000)


def test_a_shadow_that_is_refused_stops_no_worker(
    start_worker: Callable[..., Worker], server_home: Callable[[], Path]
) -> None:
    worker = start_worker(SHADOW_MODEL_PATH=str(server_home() / "none.pkl"))
    assert "The shadow model is left out" in worker.child.tail(100_000)
