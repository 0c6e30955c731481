"""Scoring completions while others are still being sampled.

A completion that has ended goes to the reward pool's worker processes at once, from a thread of this process. When the
trainer asks for the rewards of the whole batch, `Scorer` scores it as it always does, and the pool takes what it has
scored already. It takes an outcome only for the same completion with the same columns, so a completion that the trainer
hands over otherwise than was expected here is scored as without this.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any

from posttrain.scoring.pool import RewardPool
from posttrain.scoring.scorer import Scorer, row_of

_LINGER_S = 1.0  # that the thread waits for another completion before it ends


class ScoringAhead:
    """Gives completions to the workers of the reward functions' pool as they are sampled.

    Does nothing where there is no pool with workers. TRL-style functions, which want the whole batch, are not scored
    ahead. `row` may be called from any thread, the rest from the trainer's.

    Args:
        reward_funcs: The trainer's; those that `trl_reward_functions` made are looked at.
        tokenizer: Decodes completions as the trainer will do. One that parses what a model says into messages leaves
            nothing to do here.
        enabled: False does nothing.
    """

    def __init__(self, reward_funcs: Sequence[Any], tokenizer: Any, *, enabled: bool = True):
        self._tokenizer = tokenizer
        parses = any(getattr(tokenizer, name, None) is not None for name in ("response_template", "response_schema"))
        self._pool, self._rewards = _in_pool(reward_funcs) if enabled and not parses else (None, [])
        self._rows: Sequence[Mapping[str, Any]] | None = None
        self._inbox: list[tuple[int, list[int]]] = []
        self._lock = threading.Lock()  # of the inbox, and of whether there is a thread
        self._open = False
        self._thread: threading.Thread | None = None
        if self._pool is not None:
            self._awake, self._wake = os.pipe()
            os.set_blocking(self._awake, False)
            weakref.finalize(self, _close_all, self._awake, self._wake)

    @property
    def on_row(self) -> Callable[[int, list[int]], None] | None:
        """`row`, to be called for each completion that has ended; `None` where there is no use for it."""
        return None if self._pool is None else self.row

    @contextmanager
    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """What is sampled and scored in this block belongs to these rows of the data set; after it nothing is left."""
        self.begin(rows)
        try:
            yield
            self._judge()
        finally:
            self._end()

    def begin(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Expect a completion of each of these rows; nothing if they are those expected already."""
        if self._pool is None or (self._open and rows is self._rows):
            return
        self._end()
        with self._lock:
            self._rows, self._open = rows, True

    def row(self, number: int, token_ids: list[int]) -> None:
        """Score the completion of the row with this number, soon. Returns at once."""
        with self._lock:
            if not self._open:
                return
            self._inbox.append((number, token_ids))
            if len(self._inbox) == 1:
                os.write(self._wake, b"1")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scoring-ahead", daemon=True)
                self._thread.start()

    def finish(self) -> float:
        """Everything is sampled: leave the workers, and what they are at, to `Scorer`.

        Returns:
            Seconds that rewards have taken meanwhile, added up over the workers.
        """
        self._stop()
        if self._pool is None:
            return 0.0
        return sum(job.outcome.seconds for job in self._pool.begun() if job.outcome is not None)

    # ---- the thread ----

    def _run(self) -> None:
        assert self._pool is not None
        try:
            while self._open:
                self._begin_arrived()
                if self._pool.advance(self._awake):
                    self._drain()
                elif not wait([self._awake], _LINGER_S):
                    with self._lock:
                        if not self._inbox:
                            self._thread = None
                            return
                else:
                    self._drain()
        except Exception as error:  # the same rewards are scored again by and by, and fail where it can be told
            self._pool.forget()
            warnings.warn(f"scoring while sampling ended: {error}", stacklevel=1)
            self._open = False

    def _begin_arrived(self) -> None:
        with self._lock:
            arrived, self._inbox = self._inbox, []
            rows = self._rows
        if not arrived or rows is None or self._pool is None:
            return
        texts = [self._tokenizer.decode(ids, skip_special_tokens=True) for _, ids in arrived]
        columns = [row_of(rows[number]) for number, _ in arrived]
        for index in self._rewards:
            self._pool.begin(index, texts, columns)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._awake, 4096):
                pass

    def _stop(self) -> None:
        """End the thread; what workers are at goes on."""
        with self._lock:
            self._open, self._inbox = False, []
            thread, self._thread = self._thread, None
            if thread is not None:
                os.write(self._wake, b"1")
        if thread is not None:
            thread.join()

    def _end(self) -> None:
        self._stop()
        self._rows = None
        if self._pool is not None:
            self._pool.forget()

    def _judge(self) -> None:
        """Stop for good where nothing that was scored ahead was what the trainer asked for."""
        begun = [] if self._pool is None else self._pool.begun()
        if begun and not any(job.wanted for job in begun):
            self._end()
            self._pool = None
            warnings.warn(
                "no completion that was scored while sampling went on is what the trainer scores; not scoring ahead "
                "any more (score_ahead=False does so from the start)",
                stacklevel=3,
            )


def _in_pool(reward_funcs: Sequence[Any]) -> tuple[RewardPool | None, list[int]]:
    """The pool that reward functions score in, and its numbers of their rewards that take one completion."""
    pool: RewardPool | None = None
    indices: list[int] = []
    for function in reward_funcs:
        scorer: Scorer | None = getattr(function, "scorer", None)
        if scorer is None or scorer.pool is None or not scorer.pool.workers or scorer.pool is not (pool or scorer.pool):
            continue
        reward = scorer.rewards[function.index]
        if reward.style == "score" and not (reward.of_group or reward.of_length):
            pool = scorer.pool
            indices.append(pool.index(reward))
    return pool, list(dict.fromkeys(indices))


def _close_all(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)
