"""What a process has one of, made when it is first asked for."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from sqlalchemy import Connection, Engine, text

from db.engine import make_engine, transaction
from db.errors import DatabaseUnavailable, TransactionLost
from db.in_loop import LoopConnections, make_loop_connections
from scoring import Model, ModelRefused, load_model
from settings import get_settings
from tasks.availability import Availability

logger = logging.getLogger(__name__)

_postgresql = Availability("PostgreSQL", logger)


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Return this process's database engine; it connects when it is used."""
    settings = get_settings()
    return make_engine(
        settings.database_url,
        pool_size=settings.database_pool_size,
        connect_timeout_s=settings.database_connect_timeout_s,
        statement_timeout_s=settings.database_statement_timeout_s,
    )


@contextmanager
def database() -> Iterator[Connection]:
    """One transaction. That PostgreSQL went away, or came back, is logged once, whoever notices.

    Raises:
      DatabaseError: as ``db.engine.transaction`` does.
    """
    with noticing(), transaction(engine()) as connection:
        yield connection


@contextmanager
def statements() -> Iterator[Connection]:
    """Statements that stand each for itself, committed once PostgreSQL has executed them: one round trip, and
    no lock is held while this process is busy, stopped or frozen.

    Raises:
      DatabaseError: as ``db.engine.transaction`` does.
    """
    with noticing(), transaction(_autocommitting()) as connection:
        yield connection


@lru_cache(maxsize=1)
def _autocommitting() -> Engine:
    """The same engine, with the same connections."""
    return engine().execution_options(isolation_level="AUTOCOMMIT")


def make_connections_of_loop() -> LoopConnections:
    """Make what one event loop needs to use the same database by itself, within :func:`noticing`."""
    settings = get_settings()
    return make_loop_connections(
        settings.database_url,
        connect_timeout_s=settings.database_connect_timeout_s,
        statement_timeout_s=settings.database_statement_timeout_s,
    )


@contextmanager
def noticing() -> Iterator[None]:
    """Have the log say, once, when PostgreSQL went away or came back, by what happens in this block."""
    asked_at_s = time.monotonic()
    try:
        yield
    except TransactionLost:
        _postgresql.came_back()  # it answered
        raise
    except DatabaseUnavailable as error:
        _postgresql.went_away(error, asked_at_s=asked_at_s)
        raise
    _postgresql.came_back()


def ping_database() -> None:
    """Ask PostgreSQL for a sign of life.

    Raises:
      DatabaseError: when there is none.
    """
    with statements() as connection:
        connection.execute(text("SELECT 1"))


@lru_cache(maxsize=1)
def model() -> Model:
    """Return the model of ``MODEL_PATH``, loaded once.

    Raises:
      ModelRefused: when the file is not the one that was trained, or not for this scikit-learn.
    """
    return load_model(get_settings().model_path)


@lru_cache(maxsize=1)
def shadow_model() -> Model | None:
    """Return the model of ``SHADOW_MODEL_PATH``, loaded once; None when none is named or it is refused:
    what is on trial stops no worker."""
    path = get_settings().shadow_model_path
    if not path:
        return None
    try:
        loaded = load_model(path)
    except ModelRefused as refused:
        logger.error("The shadow model is left out: %s", refused)
        return None
    logger.info("Shadow model %s is loaded", loaded.version)
    return loaded
