"""One call of the command: its target, its output, and the way in which errors end it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import typer
from dramatiq.errors import ActorNotFound, BrokerConnectionError, QueueNotFound

from .. import (
    CancelUndecided,
    EnqueueFailed,
    ExpiryRefused,
    InvalidQueueName,
    KafkaBroker,
    KafkaUnavailable,
    KeyLimitRefused,
    NotAuthorized,
    ParameterRefused,
    PartitionKeyRefused,
    ScheduleRefused,
    TopicMisconfigured,
    UniqueRefused,
    UnknownWorker,
    UnreadableResolution,
    WorkerInfo,
    WorkerState,
)
from .exits import ExitCode
from .findings import group_warnings
from .output import Output, OutputFailed
from .target import Target, TargetRefused
from .texts import BadText


class Refused(Exception):
    """The command is refused. The text is one sentence for stderr.

    Attributes:
      code: The exit code.
    """

    def __init__(self, text: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True)
class Session:
    """One call of the command.

    Attributes:
      given: A broker that is used instead of the target's; for tests.
      timeout_s: The time within which Kafka has to answer first.
    """

    target: Target
    output: Output
    timeout_s: float
    given: KafkaBroker | None = None
    _broker: KafkaBroker | None = field(default=None)
    _has_answered: bool = field(default=False)

    @property
    def broker(self) -> KafkaBroker:
        """The broker, whose Kafka has answered.

        Raises:
          TargetRefused: When the command line names none.
          KafkaUnavailable: When Kafka does not answer in time.
        """
        if not self._has_answered:
            self.unasked_broker.ping(self.timeout_s)
            self._has_answered = True
        return self.unasked_broker

    @property
    def unasked_broker(self) -> KafkaBroker:
        """The broker, whether its Kafka answers or not.

        Raises:
          TargetRefused: When the command line names none.
        """
        if self._broker is None:
            try:
                self._broker = self.given or self.target.broker()
            except KeyboardInterrupt:
                # While the application is imported.
                self.output.say("dkb: interrupted")
                raise
        return self._broker

    def queue_names(self, wanted: list[str] | None = None) -> list[str]:
        """The existing queues, or the wanted ones.

        Raises:
          Refused: When there is no queue of a wanted name. To ask for its state would create its topics.
          NotAuthorized: When this client may not see a queue of a wanted name, or any queue.
        """
        known = self.broker.queue_names(*(wanted or ()))
        for name in wanted or ():
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "the namespace has no queue yet"
                raise Refused(f"There is no queue {name!r}: {there}.", ExitCode.FINDING)
        return list(wanted or known)

    def check_served(self, names: Collection[str], workers: Iterable[WorkerInfo]) -> None:
        """Raise NotAuthorized when living workers serve a queue that this client may not see.

        Parameters:
          names: The queues that it may see.
        """
        if hidden := served_queues(workers).difference(names):
            self.broker.queue_names(*hidden)

    def warn_of_groups(self, queues: Collection[str] | None = None) -> None:
        """Say on stderr when workers have another ``group_id``: the state of their queues is then not known.

        Parameters:
          queues: The queues that matter; None for all.
        """
        try:
            others = self.broker.other_groups(self.broker.workers())
        except NotAuthorized:
            return  # nobody knows, and the verb is possible without the right
        shown = {name: ids for name, ids in others.items() if queues is None or name in queues}
        for sentence in group_warnings(shown):
            self.output.say(f"Warning: {sentence}")

    def declared(self, queue_name: str) -> KafkaBroker:
        """The broker, to which an existing queue is declared."""
        self.queue_names([queue_name])
        self.broker.declare_queue(queue_name)
        return self.broker

    def abandon(self, timeout_s: float) -> None:
        """Close the broker, and wait no longer than that for the requests under way: they end with the
        process.
        """
        closing = threading.Thread(target=self.close, name="closing", daemon=True)
        closing.start()
        closing.join(timeout_s)
        self._broker = None

    def close(self) -> None:
        if self._broker is not None and self.given is None:
            self._broker.close()


def served_queues(workers: Iterable[WorkerInfo]) -> set[str]:
    """The queues of living workers."""
    return {
        name
        for worker in workers
        if worker.report and worker.state is not WorkerState.GONE
        for name in worker.report.queues
    }


def session_of(context: typer.Context) -> Session:
    found: Session = context.find_root().obj
    return found


@contextmanager
def ending(context: typer.Context) -> Iterator[Session]:
    """Run a verb: an expected error ends the command with one sentence on stderr and an exit code."""
    session = session_of(context)
    try:
        yield session
    except EXPECTED as e:
        session.output.say(f"dkb: {e}")
        raise typer.Exit(_code_of(e)) from e
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader, as `head`, has enough.
        sys.stderr.close()
        raise typer.Exit(ExitCode.OK) from None
    finally:
        session.close()


_CODES: dict[type[BaseException], ExitCode] = {
    NotAuthorized: ExitCode.FORBIDDEN,
    CancelUndecided: ExitCode.UNDECIDED,
    EnqueueFailed: ExitCode.UNDECIDED,
    OutputFailed: ExitCode.UNDECIDED,
    TopicMisconfigured: ExitCode.FINDING,
    KafkaUnavailable: ExitCode.UNREACHABLE,
    BrokerConnectionError: ExitCode.UNREACHABLE,
    UnreadableResolution: ExitCode.FINDING,
    # What an operator has typed. Any other ValueError is no wrong usage.
    BadText: ExitCode.USAGE,
    ParameterRefused: ExitCode.USAGE,
    InvalidQueueName: ExitCode.USAGE,
    KeyLimitRefused: ExitCode.USAGE,
    PartitionKeyRefused: ExitCode.USAGE,
    UniqueRefused: ExitCode.USAGE,
    ExpiryRefused: ExitCode.USAGE,
    ScheduleRefused: ExitCode.USAGE,
    QueueNotFound: ExitCode.USAGE,
    ActorNotFound: ExitCode.USAGE,
    UnknownWorker: ExitCode.USAGE,
}


#: The errors that are told in one sentence. Any other is a defect, with its traceback; see ``DEFECT``.
EXPECTED: tuple[type[BaseException], ...] = (Refused, TargetRefused, *_CODES)
#: Those of them that what was typed is wrong.
WRONG_INPUT: tuple[type[BaseException], ...] = (
    Refused,
    TargetRefused,
    *(error for error, code in _CODES.items() if code is ExitCode.USAGE),
)


def _code_of(error: BaseException) -> ExitCode:
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, EnqueueFailed) and error.failures:
        # Nothing was acknowledged for one reason, which has a code of its own.
        codes = {_code_of(reason) for reason in error.failures.values() if isinstance(reason, EXPECTED)}
        others = [reason for reason in error.failures.values() if not isinstance(reason, EXPECTED)]
        if not others and len(codes) == 1 and codes <= {ExitCode.FORBIDDEN, ExitCode.FINDING}:
            return codes.pop()
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), ExitCode.USAGE)


def configure_logging(*, verbose: bool) -> None:
    """Send errors of the broker to stderr. kafka-python's lines repeat an error's text."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("dkb: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    if not verbose:
        logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
