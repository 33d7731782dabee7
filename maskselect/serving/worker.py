"""`Worker`: the one thread that runs the model. Prompts about one picture that wait together are one batch."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from maskselect.predictor import Model, ReadPicture
from maskselect.serving.settings import Refusal
from maskselect.structures.answer import Answer
from maskselect.structures.references import Reference


@dataclass(eq=False)
class Question:
    """Prompts of one request.

    Attributes:
        picture: what they ask about.
        prompts: P texts.
        references: of each prompt.
        threshold: None for the model's own.
        future: receives the P answers.
    """

    picture: ReadPicture
    prompts: Sequence[str]
    references: Sequence[Sequence[Reference]]
    threshold: float | None = None
    future: "Future[list[Answer]]" = field(default_factory=Future)


@dataclass(eq=False)
class Task:
    """Other work for the model, such as reading a picture."""

    run: Callable[[], Any]
    future: "Future[Any]" = field(default_factory=Future)


class Worker:
    """Answers questions and runs tasks in the order of their arrival.

    A question that was cancelled before its turn is not computed.

    Args:
        model: the model.
        waiting: most entries of the queue.
        batch: most prompts of a batch.
    """

    def __init__(self, model: Model, waiting: int, batch: int) -> None:
        self.model, self.limit, self.batch = model, waiting, batch
        self.batches: deque[int] = deque(maxlen=1000)  # prompts of recent batches
        self._queue: deque[Question | Task] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="maskselect-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Number of waiting entries."""
        with self._changed:
            return sum(not entry.future.cancelled() for entry in self._queue)

    def put(self, entry: Question | Task) -> None:
        """Queue an entry, whose future gets the result.

        Raises:
            Refusal: the queue is full, or the server stops.
        """
        with self._changed:
            if self._stopped:
                raise Refusal(503, "stopping", "the server stops; try again later")
            if sum(not other.future.cancelled() for other in self._queue) >= self.limit:
                raise Refusal(
                    503, "queue_full", f"{self.limit} requests wait for the model already; try again in some seconds"
                )
            self._queue.append(entry)
            self._changed.notify()

    def stop(self, seconds: float = 5.0) -> None:
        """Cancel what waits, and wait for what runs, at most `seconds`."""
        with self._changed:
            self._stopped = True
            for entry in self._queue:
                entry.future.cancel()
            self._queue.clear()
            self._changed.notify()
        self._thread.join(seconds)

    def _loop(self) -> None:
        while (entries := self._next()) is not None:
            ready = [entry for entry in entries if entry.future.set_running_or_notify_cancel()]
            if not ready:
                continue
            first = ready[0]
            if isinstance(first, Task):
                _settle(first.future, first.run)
            else:
                self._answer([entry for entry in ready if isinstance(entry, Question)])

    def _next(self) -> list[Question | Task] | None:
        """The first entry with the questions that join its batch; None when the worker stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopped)
            if self._stopped:
                return None
            first = self._queue.popleft()
            if isinstance(first, Task):
                return [first]
            batch: list[Question | Task] = [first]
            count = len(first.prompts)
            for other in list(self._queue):
                joins = (
                    isinstance(other, Question)
                    and other.picture is first.picture
                    and other.threshold == first.threshold
                    and count + len(other.prompts) <= self.batch
                )
                if joins and isinstance(other, Question):
                    self._queue.remove(other)
                    batch.append(other)
                    count += len(other.prompts)
            return batch

    def _answer(self, questions: list[Question]) -> None:
        """Answer questions about one picture together or, if that fails, one by one, so that a bad one fails alone."""
        if len(questions) > 1:
            try:
                answers = self._ask(questions)
            except Exception:  # the single calls tell whose error it is
                answers = None
            if answers is not None:
                for question in questions:
                    question.future.set_result(answers[: len(question.prompts)])
                    answers = answers[len(question.prompts) :]
                return
        for question in questions:
            _settle(question.future, lambda question=question: self._ask([question]))  # type: ignore[misc]

    def _ask(self, questions: list[Question]) -> list[Answer]:
        prompts = [text for question in questions for text in question.prompts]
        references = [one for question in questions for one in question.references]
        self.batches.append(len(prompts))
        return self.model.answer(questions[0].picture, prompts, references, questions[0].threshold)


def _settle(future: "Future[Any]", run: Callable[[], Any]) -> None:
    """Give a future the result or the exception of a call."""
    try:
        future.set_result(run())
    except BaseException as error:
        future.set_exception(error)
