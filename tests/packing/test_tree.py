"""The layout of a packed sequence, against what each scored token must see, spelled out row by row."""

from __future__ import annotations

import pytest
import torch

from posttrain.inputs.data import IGNORED
from posttrain.packing.tree import Tree, grow, lay


def batch(prompts: list[list[int]], completions: list[list[int]], *, columns: int = 5, width: int = 4):
    """Padded rows as TRL makes them; padding is 0, which is also a token."""
    ids, mask = torch.zeros(len(prompts), columns + width, dtype=torch.long), torch.zeros(len(prompts), columns + width)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        for place, tokens in ((columns - len(prompt), prompt), (columns, completion)):
            ids[row, place : place + len(tokens)] = torch.tensor(tokens)
            mask[row, place : place + len(tokens)] = 1
    return ids[:, :columns], mask[:, :columns], ids[:, columns:], mask[:, columns:]


def seen(tree: Tree, position: int) -> list[tuple[int, int]]:
    """Tokens and their position ids in view of a position, itself included, in their order."""
    own = next(span for span in tree.spans if span[0] <= position < span[1])
    prompt = next((prompt for rows, prompt in tree.branches if rows[0] <= position < rows[1]), (0, 0))
    places = [*range(*prompt), *range(own[0], position + 1)]
    return [(int(tree.input_ids[0, each]), int(tree.position_ids[0, each])) for each in places]


PROMPTS = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [4], [4], [1, 2, 3]]
COMPLETIONS = [[5, 6, 7, 8], [9], [], [5, 0], [6, 7, 8], [9, 9]]


def test_each_label_is_predicted_from_its_prompt_and_what_was_written_before_it():
    tree = grow(*batch(PROMPTS, COMPLETIONS))
    number = 0
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        for column, label in enumerate(completion):
            context = prompt + completion[:column]
            first = 5 - len(prompt)  # TRL's column of the prompt's first token
            expected = [(token, first + place) for place, token in enumerate(context)]
            assert seen(tree, int(tree.scored[number])) == expected
            assert (int(tree.labels[0, number]), int(tree.cells[number])) == (label, row * 4 + column)
            number += 1
    assert number == tree.labels.numel() == tree.scored.numel() == tree.cells.numel()


def test_positions_may_count_from_a_rows_first_token():
    tree = grow(*batch(PROMPTS, COMPLETIONS), by_mask=True)
    assert tree.position_ids.tolist() == [[0, 1, 2, 0, 0, 1, 2, 3, 4, 5, 1, 1, 2, 3]]


def test_a_prompt_stands_once_and_last_tokens_not_at_all():
    tree = grow(*batch(PROMPTS, COMPLETIONS))
    # prompts of three groups: the last row's prompt is the first's again, but not beside it
    assert tree.input_ids.tolist() == [[1, 2, 3, 4, 1, 2, 3, 5, 6, 7, 5, 6, 7, 9]]
    assert tree.spans == ((0, 3), (3, 4), (4, 7), (7, 10), (10, 11), (11, 13), (13, 14))
    assert tree.branches == (((7, 10), (0, 3)), ((10, 13), (3, 4)), ((13, 14), (4, 7)))


def test_prompts_that_differ_in_padding_alone_are_told_apart():
    """A token that equals the padding is a token."""
    tree = grow(*batch([[0, 1], [1]], [[2, 3], [2, 3]]))
    assert tree.input_ids.tolist() == [[0, 1, 1, 2, 2]]
    same = grow(*batch([[1], [1]], [[2, 3], [2, 3]]))
    assert same.input_ids.tolist() == [[1, 2, 2]]


def test_what_lies_under_the_padding_does_not_part_a_group():
    prompt_ids, *rest = batch([[1], [1]], [[2, 3], [2, 3]])
    prompt_ids[1, 0] = 7
    assert grow(prompt_ids, *rest).input_ids.tolist() == [[1, 2, 2]]


def test_values_are_spread_over_their_cells_and_gradients_come_back():
    tree = grow(*batch(PROMPTS, COMPLETIONS))
    values = torch.arange(1.0, 13.0)[None].requires_grad_()
    rows = tree.spread(values)
    assert rows.tolist() == [[1, 2, 3, 4], [5, 0, 0, 0], [0] * 4, [6, 7, 0, 0], [8, 9, 10, 0], [11, 12, 0, 0]]
    (rows * rows).sum().backward()
    assert torch.equal(values.grad, 2 * values.detach())


def test_a_batch_with_nothing_to_score_still_has_something_to_read_and_a_gradient():
    tree = grow(*batch([[1, 2], [1, 2]], [[], []]))
    assert (tree.input_ids.tolist(), tree.labels.tolist()) == ([[1, 2]], [[IGNORED]])
    value = torch.ones(1, 1, requires_grad=True)
    tree.spread(value).sum().backward()
    assert value.grad.tolist() == [[0.0]]


@pytest.mark.parametrize("fault", ["empty prompt", "hole in a prompt", "hole in a completion", "late completion"])
def test_rows_that_no_tree_holds(fault):
    ids, mask, completion_ids, completion_mask = batch(PROMPTS[:2], [[5, 6, 7], [9, 9, 9]])
    if fault == "empty prompt":
        mask[1] = 0
    if fault == "hole in a prompt":
        mask[1, -2] = 0
    if fault == "hole in a completion":
        completion_mask[0, 1] = 0
    if fault == "late completion":
        completion_mask[0, 0] = 0
    assert grow(ids, mask, completion_ids, completion_mask) is None


def test_demonstrations_lie_alone_up_to_the_last_position_that_predicts():
    ids = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0], [9, 9, 0, 0, 0], [1, 2, 3, 0, 0]])
    labels = torch.tensor([[-100, -100, 3, -100, 5], [6, 7, -100, -100, -100], [-100] * 5, [-100, 2, 3, -100, -100]])
    tree = lay(ids, labels)
    assert tree.input_ids.tolist() == [[1, 2, 3, 4, 6, 1, 2]]
    assert tree.position_ids.tolist() == [[0, 1, 2, 3, 0, 0, 1]]
    assert (tree.spans, tree.branches) == (((0, 4), (4, 5), (5, 7)), ())
    assert tree.scored.tolist() == [1, 3, 4, 5, 6]
    assert tree.labels.tolist() == [[3, 5, 7, 2, 3]]
    assert tree.spread(torch.ones(1, 5)).tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0] * 4, [1, 1, 0, 0]]


def test_demonstrations_without_labels_are_read_a_little():
    tree = lay(torch.tensor([[1, 2, 3]]), torch.tensor([[-100] * 3]))
    assert (tree.input_ids.tolist(), tree.labels.tolist(), tree.cells.numel()) == ([[1]], [[IGNORED]], 0)
