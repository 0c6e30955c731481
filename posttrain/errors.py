"""The exceptions that posttrain raises on purpose.

Each is also the standard exception it specialises, so `except ValueError` keeps working. A message has up to
four parts, always in this order: what was seen, what was expected, where it belongs, and what to do about it.
"""

from __future__ import annotations

import signal


class PosttrainError(Exception):
    """Base of every error that posttrain raises on purpose.

    Args:
        seen: What went wrong, with the offending value.
        expected: What would have been right.
        where: The key, argument, or `file:line` it belongs to.
        fix: What to do about it.

    Attributes:
        shared: Whether every process of a run raises it, so that one of them saying so is enough.
        rank: Which process a shared error is from, where it is not every one's own.
        lost_connection: Whether other processes of the run are gone.
    """

    shared = False
    rank: int | None = None
    lost_connection = False

    def __init__(self, seen: str, *, expected: str | None = None, where: str | None = None, fix: str | None = None):
        self.seen, self.expected, self.where, self.fix = seen, expected, where, fix
        lines = [f"{where}: {seen}" if where else seen]
        if expected:
            lines.append(f"  expected: {expected}")
        if fix:
            lines.append(f"  fix: {fix}")
        super().__init__("\n".join(lines))


class ConfigError(PosttrainError, ValueError):
    """A recipe or an argument that cannot mean anything sensible."""


class DataError(PosttrainError, ValueError):
    """A data set that is empty, lacks a column, or leaks between train and eval."""


class RewardError(PosttrainError, RuntimeError):
    """A reward that cannot be loaded, called, or trusted."""


class ResumeError(PosttrainError, RuntimeError):
    """A run directory that does not belong to the recipe at hand, or cannot be continued."""


class CheckpointError(PosttrainError, OSError):
    """A checkpoint that could not be written or read whole."""


class TrainingError(PosttrainError, RuntimeError):
    """Training that cannot go on, such as a loss that stays NaN."""


class Interrupted(PosttrainError):
    """A run that stopped because it was asked to, after saving.

    Attributes:
        signal: Which signal asked: SIGINT (Ctrl-C), or SIGTERM, by which a scheduler asks for the machine back.
    """

    signal: int = signal.SIGINT
