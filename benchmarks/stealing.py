"""The claim protocol under stress: ``python -m benchmarks.stealing --rounds 1000000``.

A forked child runs batches as a worker does, with the shipped `Execution`; this process takes tasks
back from it at random moments, with the shipped `steal_from`. Each task counts how often it ran.
Both spin instead of sleeping, so that many rounds fit into a second. Some rounds each have a child
of their own, which joins the barriers meanwhile.
"""

from __future__ import annotations

import argparse
import mmap
import os
import pickle
import random
import time
from typing import Any, NamedTuple

import numpy as np

from parallel_core.serialization.batch import Batch
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.workers import barrier
from parallel_core.workers.board import FENCED, STARTED, Board, Fence
from parallel_core.workers.execute import Execution
from parallel_core.workers.messages import AfterFailure, RunBatch
from parallel_core.workers.sent import SentBatch
from parallel_core.workers.stealing import steal_from

TASKS = 64
ROUND, ANSWERED, RAN = 0, 64, 128  # words of the shared page, in cache lines of their own
TIMES_RUN = 512  # one word for each task
END = 1 << 40


class Victim:
    """As much of a `Worker` as taking back needs."""

    is_fenced = True

    def __init__(self, board: Board, *sent: SentBatch) -> None:
        self.board = board
        self.sent = sent
        self.is_limited = False
        self.taken_back = 0

    @property
    def next_kept(self) -> int:
        """Number of the last task that nobody may take."""
        return max(self.board.words[STARTED], self.sent[0].base + 1)


class Figures(NamedTuple):
    """What came of it: rounds, tasks taken at once, given back with the answer, twice, lost."""

    rounds: int
    taken: int
    left: int
    twice: int
    lost: int


def run(rounds: int, seed: int) -> Figures:
    """Take tasks back in so many rounds; return what became of them."""
    page = memoryview(mmap.mmap(-1, 4 * mmap.PAGESIZE)).cast("Q")
    board, descriptor = Board.make()
    os.close(descriptor)
    child = os.fork()
    if child == 0:
        try:
            _work(page, board)
        finally:
            os._exit(0)
    try:
        while not board.words[FENCED]:
            time.sleep(0.001)
        return _take(page, board, rounds, random.Random(seed))
    finally:
        page[ROUND] = END
        os.waitpid(child, 0)


def run_joining(rounds: int, seed: int) -> Figures:
    """Take tasks back from new workers: one task is their first batch, before they join."""
    page = memoryview(mmap.mmap(-1, 4 * mmap.PAGESIZE)).cast("Q")
    rng = random.Random(seed)
    figures = Figures(0, 0, 0, 0, 0)
    for _ in range(rounds):
        board, descriptor = Board.make()
        os.close(descriptor)
        page[ROUND] = page[ANSWERED] = 0
        child = os.fork()
        if child == 0:
            try:
                _join_late(page, board)
            finally:
                os._exit(0)
        try:
            first, rest = _batch(0, 1), _batch(1, TASKS - 1)
            worker: Any = Victim(board, SentBatch(first, 0, 0), SentBatch(rest, 1, 1))
            page[TIMES_RUN : TIMES_RUN + TASKS] = _NEVER_RUN
            while not page[ROUND]:
                pass
            page[ROUND] = 2
            for _ in range(rng.randrange(2000)):
                pass
            back = steal_from(worker, rng.choice(_KEEP))
            while not page[ANSWERED]:
                pass
            figures = _count(figures, page, back, 1 + rest.size)
        finally:
            page[ROUND] = END
            os.waitpid(child, 0)
            board.close()
    return figures


def _join_late(page: memoryview, board: Board) -> None:
    received, answers = _counting(page), list[Any]()
    page[ROUND] = 1
    while page[ROUND] == 1:
        pass
    _run(0, 0, [0], received, board, answers)
    board.words[FENCED] = Fence.JOINED if barrier.join() else Fence.REFUSED
    _run(1, 1, list(range(1, TASKS)), received, board, answers)
    page[RAN] = sum(len(answer.values) for answer in answers)
    page[ANSWERED] = 1


def _run(
    number: int,
    base: int,
    tasks: list[int],
    received: ReceivedDefinitions,
    board: Board,
    answers: list[Any],
) -> None:
    runs = [(0, 1, tasks)]
    batch = RunBatch(number, "", base, runs, None, (), AfterFailure.STOP, False, None, 0, None)
    Execution(batch, received, board, answers.append).run()


def _batch(start: int, size: int) -> Batch:
    return Batch(start, size, [(0, 1, list(range(start, start + size)))], {})


def _counting(page: memoryview) -> ReceivedDefinitions:
    """Return definitions of which the only one counts how often each task ran."""

    def count(index: int) -> None:
        page[TIMES_RUN + index] += 1

    received = ReceivedDefinitions("stress", {})
    received.receive({0: (pickle.dumps(abs), False, False)}, ())
    received.resolve(0)
    received._loaded[0] = count
    return received


def _work(page: memoryview, board: Board) -> None:
    received = _counting(page)
    answers: list[Any] = []
    board.words[FENCED] = Fence.JOINED if barrier.join() else Fence.REFUSED
    done, base = 0, 0
    while True:
        while page[ROUND] == done:
            pass
        done = page[ROUND]
        if done == END:
            return
        answers.clear()
        _run(done, base, list(range(TASKS)), received, board, answers)
        base += TASKS
        page[RAN] = sum(len(answer.values) for answer in answers)
        page[ANSWERED] = done


def _take(page: memoryview, board: Board, rounds: int, rng: random.Random) -> Figures:
    figures = Figures(0, 0, 0, 0, 0)
    for number in range(rounds):
        batch = _batch(0, TASKS)
        sent = SentBatch(batch, number, number * TASKS)
        worker: Any = Victim(board, sent)
        board.allow()
        page[TIMES_RUN : TIMES_RUN + TASKS] = _NEVER_RUN
        page[ROUND] = number + 1
        for _ in range(rng.randrange(4000)):
            pass
        back = [
            part
            for _ in range(rng.choice((1, 1, 2)))
            for part in steal_from(worker, rng.choice(_KEEP))
        ]
        while page[ANSWERED] != number + 1:
            pass
        figures = _count(figures, page, back, batch.size)
    return figures


def _count(figures: Figures, page: memoryview, back: list[Batch], kept: int) -> Figures:
    """Add one round, after which the worker `kept` so many tasks, to `figures`."""
    ran = page[RAN]
    outcomes = np.array(page[TIMES_RUN : TIMES_RUN + TASKS])
    outcomes[ran:kept] += 1
    for part in back:
        outcomes[part.start : part.start + part.size] += 1
    return Figures(
        figures.rounds + 1,
        figures.taken + sum(part.size for part in back),
        figures.left + kept - ran,
        figures.twice + int(np.count_nonzero(outcomes > 1)),
        figures.lost + int(np.count_nonzero(outcomes < 1)),
    )


_NEVER_RUN = memoryview(bytes(8 * TASKS)).cast("Q")
_KEEP = (0, 0, 1, 5, 50)


def main() -> int:
    """Run from the command line; return 0 if nothing ran twice and nothing was lost."""
    parser = argparse.ArgumentParser(description="The claim protocol under stress.")
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    status = 0
    for figures in (
        run(options.rounds, options.seed),
        run_joining(options.rounds // 1000, options.seed),
    ):
        print(" ".join(f"{name}={value}" for name, value in figures._asdict().items()))
        status |= bool(figures.twice or figures.lost)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
