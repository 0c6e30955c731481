"""Rows of a batch as one sequence without padding, in which rows that share a prompt share its positions too.

Pure arithmetic on tensors: which tokens a forward pass needs, where each stands, what it may look at, and which hidden
states are scored. Shapes: B rows, P prompt columns, C completion columns, T columns of a demonstration, N positions of
the packed sequence, S scored positions.

The sequence is [prompt of group 1 | prompt of group 2 | ... | completion of row 1 | completion of row 2 | ...]. Rows
that follow each other with the same prompt are a group. The last token of a row predicts nothing and is left out. A
position id is what a padded pass would give: the token's column, or its place in the row (`models.positions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

from posttrain.inputs.data import IGNORED
from posttrain.packing.blocks import Block, blocks

UNEVEN = 1.5
"""How much longer than the mean a share may be: who is done first waits for it."""

Span = tuple[int, int]
"""From a position of the packed sequence up to, not including, another."""


class Share(NamedTuple):
    """Spans that see nothing of another share's.

    Attributes:
        blocks: Of the spans.
        branches: As `Tree.branches`.
    """

    blocks: tuple[Block, ...]
    branches: tuple[tuple[Span, Span], ...]


@dataclass(frozen=True, eq=False)
class Tree:
    """A packed sequence. A dataclass, so that what wraps a model for several processes passes it on as it is.

    Attributes:
        input_ids, position_ids: (1, N).
        spans: Every prompt and every completion; each position sees itself and what is before it in its span.
        branches: (completions, prompt): the completions' positions of a group, which all see the whole prompt.
        scored: (S,) position whose hidden state predicts a label; a prompt's last one appears once for each row.
        labels: (1, S) token ids, one per scored position.
        cells: (S,) where each label stands in the flattened padded rows.
        shape: Of the padded rows that `spread` gives back.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    spans: tuple[Span, ...]
    branches: tuple[tuple[Span, Span], ...]
    scored: torch.Tensor
    labels: torch.Tensor
    cells: torch.Tensor
    shape: tuple[int, int]

    @cached_property
    def bundles(self) -> tuple[tuple[Block, Span], ...]:
        """The spans side by side, and what all of a block see whole: those that see nothing else, then the completions
        of each group, in the order of the packed sequence.
        """
        roots = [span for span in self.spans if not self.branches or span[0] < self.branches[0][0][0]]
        groups = [([span for span in self.spans if a <= span[0] < b], prompt) for (a, b), prompt in self.branches]
        return tuple((Block.of(rows, self.scored.device), prompt) for rows, prompt in [(roots, (0, 0)), *groups])

    @cached_property
    def longest(self) -> int:
        """Positions of the longest row, its prompt included."""
        prompts = [(rows, stop - start) for rows, (start, stop) in self.branches]
        before = {span: width for rows, width in prompts for span in self.spans if rows[0] <= span[0] < rows[1]}
        return max(stop - start + before.get((start, stop), 0) for start, stop in self.spans)

    def shares(self, count: int) -> tuple[Share, ...]:
        """The sequence in so many shares of nearly the same length, or in one where it can't be dealt so.

        A prompt stays with its completions.
        """
        if count not in self._shares:
            hands = _dealt(self._families, count)
            self._shares[count] = tuple(map(self._share, hands if len(hands) == count else [list(self.spans)]))
        return self._shares[count]

    @cached_property
    def _shares(self) -> dict[int, tuple[Share, ...]]:
        return {}

    @cached_property
    def _families(self) -> list[list[Span]]:
        """Spans that see each other: a prompt and its completions, or a span alone."""
        families = {span: [span] for span in self.spans}
        for (start, stop), prompt in self.branches:
            for span in self.spans:
                if start <= span[0] < stop:
                    families[prompt] += families.pop(span)
        return list(families.values())

    def _share(self, spans: list[Span]) -> Share:
        held = set(spans)
        branches = tuple((rows, prompt) for rows, prompt in self.branches if prompt in held)
        return Share(blocks(spans, self.scored.device), branches)

    def spread(self, values_1S: torch.Tensor) -> torch.Tensor:
        """Values of the scored positions in their cells of the padded rows, 0 elsewhere; differentiable."""
        rows, columns = self.shape
        flat = values_1S.new_zeros(rows * columns)
        return flat.index_put((self.cells,), values_1S[0, : self.cells.numel()]).view(rows, columns)


def grow(
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    completion_ids: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    by_mask: bool = False,
) -> Tree | None:
    """The tree of a batch of rollouts.

    Args:
        prompt_ids, prompt_mask: (B, P), padded on the left.
        completion_ids, completion_mask: (B, C), padded on the right. A row that is masked whole is not scored.
        by_mask: Count positions from a row's first token on; else they are columns, which padding on the left shifts.

    Returns:
        The tree, its `shape` (B, C); `None` where a row does not allow it: an empty prompt leaves its first token to be
        predicted from padding, and a hole in a mask makes a position's context differ from what is before it.
    """
    prompt_mask, completion_mask = prompt_mask.bool(), completion_mask.bool()
    columns = prompt_ids.size(1)
    if not (_ends_full(prompt_mask) and _begins_full(completion_mask)):
        return None
    first = _first_of_groups(prompt_ids, prompt_mask)
    group = first.long().cumsum(0) - 1  # of each row
    kept = completion_mask.clone()
    kept[:, :-1] &= completion_mask[:, 1:]  # a row's last token predicts nothing
    kept[:, -1] = False

    prompts = prompt_mask[first]
    starts, widths = _packed(prompts.sum(1))
    trunk = int(prompts.sum())
    row_starts, row_widths = _packed(kept.sum(1), after=trunk)
    place = torch.arange(completion_ids.size(1), device=prompt_ids.device)
    before = row_starts[:, None] + place - 1  # a cell is predicted from the position before it ...
    before[:, 0] = (starts + widths)[group] - 1  # ... the first one from the prompt's end

    every = torch.arange(columns + completion_ids.size(1), device=prompt_ids.device)
    padding = (columns - prompt_mask.sum(1, keepdim=True)) * by_mask
    positions = [(every[:columns] - padding[first])[prompts], (every[columns:] - padding)[kept]]
    groups = _branches(group.tolist(), starts.tolist(), widths.tolist(), row_starts.tolist(), row_widths.tolist())
    return _tree(
        torch.cat([prompt_ids[first][prompts], completion_ids[kept]]),
        torch.cat(positions),
        _spans(starts, widths) + _spans(row_starts, row_widths),
        groups,
        scored=before[completion_mask],
        labels=completion_ids[completion_mask],
        mask=completion_mask,
    )


def lay(input_ids: torch.Tensor, labels: torch.Tensor) -> Tree:
    """Demonstrations one after another, each alone, up to the last position that predicts a label.

    Args:
        input_ids: (B, T), padded on the right.
        labels: (B, T) token ids, -100 where nothing is learned; column 0 has no context and never counts.

    Returns:
        A tree whose `shape` is (B, T - 1): column t holds the label of column t + 1.
    """
    wanted = labels[:, 1:] != IGNORED
    kept = wanted.flip(1).cumsum(1).flip(1) > 0  # a label is still to come
    if not bool(kept.any()):
        kept[0, 0] = True  # a model needs something to read
    starts, widths = _packed(kept.sum(1))
    place = torch.arange(kept.size(1), device=input_ids.device).expand_as(kept)
    return _tree(
        input_ids[:, :-1][kept],
        place[kept],
        _spans(starts, widths),
        (),
        scored=(starts[:, None] + place)[wanted],
        labels=labels[:, 1:][wanted],
        mask=wanted,
    )


def _tree(
    ids: torch.Tensor,
    positions: torch.Tensor,
    spans: tuple[Span, ...],
    branches: tuple[tuple[Span, Span], ...],
    *,
    scored: torch.Tensor,
    labels: torch.Tensor,
    mask: torch.Tensor,
) -> Tree:
    cells = mask.flatten().nonzero()[:, 0]
    if not scored.numel():  # a head that is asked for nothing would not be part of the graph
        scored, labels = scored.new_zeros(1), labels.new_full((1,), IGNORED)
    return Tree(ids[None], positions[None], spans, branches, scored, labels[None], cells, (mask.size(0), mask.size(1)))


def _dealt(families: list[list[Span]], count: int) -> list[list[Span]]:
    """The families in so many hands, the longest first and each to the hand that holds least; none, if uneven."""
    hands: list[list[Span]] = [[] for _ in range(count)]
    held = [0] * count
    lengths = [sum(stop - start for start, stop in spans) for spans in families]
    for number in sorted(range(len(families)), key=lambda number: -lengths[number]):
        least = held.index(min(held))
        hands[least] += families[number]
        held[least] += lengths[number]
    return hands if max(held) * count <= UNEVEN * sum(held) else []


def _ends_full(mask: torch.Tensor) -> bool:
    """Whether every row is zeros and then at least one one."""
    return mask.size(1) > 0 and bool(mask[:, -1].all() & (mask[:, 1:] >= mask[:, :-1]).all())


def _begins_full(mask: torch.Tensor) -> bool:
    """Whether every row is ones and then zeros."""
    return mask.size(1) > 0 and bool((mask[:, 1:] <= mask[:, :-1]).all())


def _first_of_groups(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) whether a row's prompt differs from that of the row before it."""
    same = (mask[1:] == mask[:-1]) & ((ids[1:] == ids[:-1]) | ~mask[1:])
    return torch.cat([mask.new_ones(1), ~same.all(1)])


def _packed(widths: torch.Tensor, after: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Where spans of these widths start, laid end to end, and the widths."""
    return widths.cumsum(0) - widths + after, widths


def _spans(starts: torch.Tensor, widths: torch.Tensor) -> tuple[Span, ...]:
    pairs = zip(starts.tolist(), widths.tolist(), strict=True)
    return tuple((start, start + width) for start, width in pairs if width)


def _branches(
    group: list[int], starts: list[int], widths: list[int], row_starts: list[int], row_widths: list[int]
) -> tuple[tuple[Span, Span], ...]:
    """The completions of each group, which stand side by side, and its prompt."""
    ends: dict[int, Span] = {}
    for number, start, width in zip(group, row_starts, row_widths, strict=True):
        ends[number] = (ends[number][0] if number in ends else start, start + width)
    return tuple(
        (span, (starts[number], starts[number] + widths[number])) for number, span in ends.items() if span[1] > span[0]
    )
