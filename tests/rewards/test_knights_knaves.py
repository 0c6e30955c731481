# ruff: noqa: E501 (one phrasing a line)
from __future__ import annotations

import itertools
import time

import pytest

from posttrain.rewards.knights_knaves import answer_section, score
from posttrain.scoring.score import Score
from tests.rewards.knights_knaves_renderings import FIXED, SAYS_ALL, SAYS_TOO_LITTLE

NAMES = ["Ann", "Bob", "Cid"]
SOLUTION = [True, False, False]

RIGHT = [
    "(1) Ann is a knight\n(2) Bob is a knave\n(3) Cid is a knave",
    "Ann is a knight, Bob is a knave, and Cid is a knave.",
    "Ann is a knight, and Bob and Cid are knaves.",
    "Ann is a knight. Bob and Cid are both knaves.",
    "Bob and Cid are knaves, Ann is a knight",
    "Only Ann is a knight.",
    "Ann is the only knight.",
    "The only knight is Ann.",
    "Knights: Ann; Knaves: Bob, Cid",
    "Knights: Ann\nKnaves: Bob and Cid",
    "**Knights:** Ann\n**Knaves:** Bob, Cid",
    "Knights:\n- Ann\n\nKnaves:\n- Bob\n- Cid",
    "### Knights\n* Ann\n### Knaves\n* Bob\n* Cid",
    "Ann: knight, Bob: knave, Cid: knave",
    "Ann: Knight\nBob: Knave\nCid: Knave",
    "- **Ann**: Knight\n- **Bob**: Knave\n- **Cid**: Knave",
    "1. **Ann** is a **knight**.\n2. **Bob** is a **knave**.\n3. _Cid_ is a _knave_.",
    "Ann = knight; Bob = knave; Cid = knave",
    "Ann - knight, Bob - knave, Cid - knave",
    "Ann \u2014 knight\nBob \u2013 knave\nCid \u2014 knave",
    "Ann -> knight, Bob -> knave, Cid -> knave",
    "Ann → knight\nBob ⇒ knave\nCid => knave",
    "Ann (knight), Bob (knave), Cid (knave)",
    '{"Ann": "knight", "Bob": "knave", "Cid": "knave"}',
    '```json\n{\n  "Ann": "knight",\n  "Bob": "knave",\n  "Cid": "knave"\n}\n```',
    "{'Ann': 'knight', 'Bob': 'knave', 'Cid': 'knave'}",
    "| Person | Role |\n|---|---|\n| Ann | Knight |\n| Bob | Knave |\n| Cid | Knave |",
    "| Ann | Bob | Cid |\n|:-:|:-:|:-:|\n| knight | knave | knave |",
    "| Name | Knight or knave? |\n|---|---|\n| Ann | a knight |\n| Bob | a knave |\n| Cid | not a knight |",
    "ANN IS A KNIGHT, BOB IS A KNAVE, CID IS A KNAVE",
    "ann is a knight, bob is a knave, cid is a knave",
    "\\boxed{\\text{Ann is a knight, Bob is a knave, Cid is a knave}}",
    "The answer is $\\boxed{\\text{Ann: knight}, \\text{Bob: knave}, \\text{Cid: knave}}$.",
    "\\[\\begin{array}{cc} \\text{Ann} & \\text{knight} \\\\ \\text{Bob} & \\text{knave} \\\\ \\text{Cid} & \\text{knave} \\end{array}\\]",
    "The knight is Ann, the knaves are Bob and Cid.",
    "The knight is Ann and the knaves are Bob and Cid.",
    "The knight is Ann and Bob is a knave and Cid is a knave.",
    "Ann is not a knave. Bob is not a knight. Cid isn't a knight.",
    "Ann is a knight, not a knave; Bob is a knave, not a knight; Cid is a knave.",
    "Ann is a knight. Everyone else is a knave.",
    "Ann is a knight and the others are knaves.",
    "Ann is a knight, the rest are knaves.",
    "Ann is a knight; the other two are knaves.",
    "Everyone except Ann is a knave.",
    "Everyone but Ann is a knave",
    "All of them except Ann are knaves.",
    "Ann is a knight and neither Bob nor Cid is a knight.",
    "Ann must be a knight, Bob must be a knave, Cid has to be a knave.",
    "Ann cannot be a knave. Bob can't be a knight. Cid can only be a knave.",
    "Ann is indeed a knight, Bob is therefore a knave, and Cid is definitely a knave.",
    "Ann's a knight, Bob's a knave, Cid's a knave.",
    "Ann is a knight, Bob a knave, and Cid a knave.",
    "Ann is the knight and Bob the knave and Cid the other knave.",
    "Ann, Bob, and Cid are a knight, a knave, and a knave, respectively.",
    "(Ann, Bob, Cid) = (knight, knave, knave)",
    "Ann's role is knight. Bob's role: knave. Role of Cid: knave",
    "Ann is a knave. Bob is a knave. Cid is a knave. Wait, actually Ann is a knight.",
    "Ann is a knave, Bob is a knight. No, wait. Ann is a knight, Bob is a knave and Cid is a knave.",
    "Suppose Ann is a knave. Then Bob is a knight. This is a contradiction. So Ann is a knight. Therefore Bob is a knave, and Cid is a knave.",
    "<think>Ann is a knave. Bob is a knight</think>Ann is a knight, Bob is a knave, Cid is a knave",
    "<think>Zoey is not a knight. Ann is a knave</think>\n<answer>(1) Ann is a knight\n(2) Bob is a knave\n(3) Cid is a knave</answer>",
    "Ann is a knight, Bob is a knave, Cid is a knight\n\n**Final answer:**\nAnn is a knight, Bob is a knave, Cid is a knave",
    "### Conclusion\nAnn is a knight\nBob is a knave\nCid is a knave",
    "CONCLUSION:\n(1) Ann is a knight\n(2) Bob is a knave\n(3) Cid is a knave",
    "<answer>Ann: knave</answer> hmm <answer>Ann: knight, Bob: knave, Cid: knave</answer>",
    "<ANSWER>Ann: knight, Bob: knave, Cid: knave</ANSWER>",
    "<answer>Ann: knight, Bob: knave, Cid: knave",
    "(1) Ann is a knight (2) Bob is a knave (3) Cid is a knave",
    "1) Ann: knight 2) Bob: knave 3) Cid: knave",
    "Ann is a truth-teller, Bob is a liar and Cid is a liar.",
    'Ann is a knight because Bob is a knave. Cid said "Ann is a knave", so Cid is a knave.',
    "Bob said that Ann is a knave, so Bob is a knave. Cid claims Bob is a knight, so Cid is a knave. Thus Ann is a knight.",
    "~~Ann is a knave~~ Ann is a knight, Bob is a knave, Cid is a knave",
    "Ann is a\nknight, Bob is\na knave, and\nCid is a knave.",
    "Bob is a knave, Cid is too a knave... hence: Ann=knight, Bob=knave, Cid=knave",
    "We find that Ann is a knight, while Bob is a knave and Cid is a knave.",
    "Ann is a knight\n\nBob is a knave\n\nCid is a knave",
    "<b>Ann</b>: knight<br>Bob: knave<br>Cid: knave",
    "Ann == knight, Bob != knight, Cid ≠ knight",
    "Knight: Ann. Knave: Bob. Knave: Cid.",
    "Knight(s): Ann. Knave(s): Bob, Cid.",
    "Knights = {Ann}, Knaves = {Bob, Cid}",
    "I believe Ann is a knight, Bob is a knave and Cid is a knave.",
    "In conclusion, Ann is a knight, Bob is a knave, and Cid is a knave.",
    "I say Ann is a knight and I say that Bob and Cid are knaves.",
    "So the solution is: Ann is a knight; Bob is a knave; Cid is a knave. This is consistent.",
    "Ann is a knight. This means she tells the truth. Bob is a knave, who lies. Cid is a knave as well.",
    "Ann, who is a knight, tells the truth; Bob, who is a knave, lies, and Cid, a knave, lies too.",
    "Ann is a knight\xa0and Bob is a knave and Cid is a knave",
    "Ann: knight (because if Bob were truthful, Cid would lie)\nBob: knave (since he lies)\nCid: knave",
    "Ann is a knight, because if she were a knave, Bob would be truthful. Bob is a knave. Cid is a knave.",
    "Therefore, the only consistent scenario is: Ann is a knight, Bob is a knave, Cid is a knave.",
    "Our assumption was wrong. Ann is a knight. Bob is a knave. Cid is a knave.",
    "Ann is a knave. Bob is a knave. Cid is a knave. Ann is actually a knight.",
    "Let's assume Ann is a knave. Then Bob is a knight. But Bob says Ann is a knight, a contradiction. Therefore Ann is a knight.\n\nSince Ann is a knight, Bob is a knave. Since Bob is a knave, Cid is a knave.",
    "Case 1: Ann is a knave. Then Bob is a knight. Contradiction.\nCase 2: Ann is a knight. Then Bob is a knave and Cid is a knave. This works.\n\nSo Ann is a knight, Bob is a knave, Cid is a knave.",
    "Ann: **knight** ✅\nBob: **knave** ❌\nCid: **knave** ❌",
    "Here's the breakdown:\n\n* **Ann:** Knight\n* **Bob:** Knave\n* **Cid:** Knave\n\nLet me know if you have any questions!",
    "Ann (1): not a knave; Bob (2): knave; Cid (3): knave",
    "The answer is: Ann is a knight, Bob is a knave, and Cid is a knave. Check: If Ann is a knight, then Bob lies, as he should.",
    "Ann is identified as a knight; Bob is identified as a knave; Cid is determined to be a knave.",
    "Ann turns out to be a knight, Bob turns out to be a knave and so does Cid: Cid is a knave.",
    "Of the three, Ann is a knight, and both Bob and Cid are knaves.",
    "**Ann** is a **Knight**, **Bob** is a **Knave**, and **Cid** is a **Knave**.",
    "<answer>\nAnn: Knight\n\nBob: Knave\n\nCid: Knave\n</answer>",
    '<answer>{"Ann": "Knight", "Bob": "Knave", "Cid": "Knave"}</answer>',
    "Final Answer: Ann - Knight; Bob - Knave; Cid - Knave.",
    "The final answer is \\boxed{Ann=knight, Bob=knave, Cid=knave}",
    "[Ann: knight] [Bob: knave] [Cid: knave]",
    "Ann\tknight\nBob\tknave\nCid\tknave",
    "Ann,knight\nBob,knave\nCid,knave",
    "Person 1 (Ann): knight, person 2 (Bob): knave, person 3 (Cid): knave",
    'Ann is a "knight", Bob is a "knave", and Cid is a "knave".',
    '{"knights": ["Ann"], "knaves": ["Bob", "Cid"]}',
    '{"Ann": "knight", "Bob": "knave",\n "Cid": "knave"}',
    "Ann is the knight. Bob is a knave and so is Cid.",
    "The knights are: Ann. The knaves are: Bob, Cid.",
    '{"name": "Ann", "role": "knight"}, {"name": "Bob", "role": "knave"}, {"name": "Cid", "role": "knave"}',
    "Ann is a Knight (tells the truth), Bob is a Knave (lies), Cid is a Knave (lies).",
    "Name: Ann, Role: knight\nName: Bob, Role: knave\nName: Cid, Role: knave",
    "| # | Person | Role | Reason |\n|---|---|---|---|\n| 1 | Ann | Knight | Bob is a knave |\n| 2 | Bob | Knave | he claims Ann is a knave |\n| 3 | Cid | Knave | - |",
    "| Role | People |\n|---|---|\n| Knight | Ann |\n| Knave | Bob, Cid |",
    "Let me verify.\n\nAnn is a knight, Bob is a knave, and Cid is a knave.\n\nVerification: Ann says Bob is a knave: true. Bob says that Ann is a knave: false. So the solution is consistent.",
    "Answer:\n\nAnn is a knight, Bob is a knave, and Cid is a knave.\n\nExplanation: if Ann were a knave, Bob would be a knight, a contradiction.",
    "1. Ann is a knight.\n   - She says Bob is a knave, which is true.\n2. Bob is a knave.\n   - He claims Ann is a knave, which is false.\n3. Cid is a knave.",
    "Therefore:\n(1) Ann is a knight\n(2) Bob is a knave\n(3) Cid is a knave\n\nThis satisfies all the conditions, as either Ann or Bob had to be a knight.",
    "To solve this, note that knights tell the truth and knaves lie. Either Ann is a knight or a knave. Assume Ann is a knave: then Bob would be a knight, which is a contradiction. Thus Ann is a knight. Because Ann is a knight, Bob is a knave. Finally, Cid is a knave.",
]

NOT_AN_ANSWER = [
    "Ann is a knight, Bob is a knave, and Cid is a knave.\n\nFinal answer: I don't know.",
    "Ann is a knight, Bob is a knave, and Cid is a knave. But I don't know whether that is right.",
    "Not: Ann is a knight, Bob is a knave, and Cid is a knave.",
    "The following is wrong: Ann is a knight, Bob is a knave, and Cid is a knave.",
    "For example, Ann is a knight, Bob is a knave, and Cid is a knave.",
    "<answer>Option A: Ann is a knight, Bob is a knave, and Cid is a knave.\nOption B: Ann is a knave, Bob is a knave, Cid is a knave</answer>",
    "Solution 1: Ann is a knight, Bob is a knave, and Cid is a knave.\nSolution 2: Ann is a knave, Bob is a knave, Cid is a knave.",
    "Ann is a knight, Bob is a knave, and Cid is a knave. This leads to a contradiction.",
    "Ann is a knight, Bob is a knave, and Cid is a knave.\n\nFinal answer: unknown",
    "A knight would say that Ann is a knight. Bob and Cid are knaves.",
    "Ann is a knight. Bob is a knave.",
    "Ann is a knight and a knave. Bob is a knave. Cid is a knave.",
    "Ann is both a knight and a knave. Bob and Cid are knaves.",
    "Ann is a knight. Bob is a knave. Cid is a knave. Ann is a knave.",
    "Ann is a knight or a knave. Bob is a knave. Cid is a knave.",
    "Either Ann is a knight or Bob is a knight. Bob is a knave, Cid is a knave.",
    "If Ann is a knight then Bob is a knave. Cid is a knave.",
    "If Ann is a knight, then Bob and Cid are knaves.",
    "Ann could be a knight, Bob could be a knave, Cid could be a knave.",
    "Maybe Ann is a knight, Bob is a knave, Cid is a knave.",
    "Is Ann a knight? Is Bob a knave? Is Cid a knave?",
    "Ann is a knight, Bob is a knave, Cid is a knave?",
    'Bob said "Ann is a knight, Bob is a knave, Cid is a knave".',
    "Bob said Ann is a knight. Ann said that Bob is a knave and Cid is a knave.",
    "According to Ann, Bob is a knave and Cid is a knave. Ann is a knight.",
    '"Ann is a knight", "Bob is a knave", "Cid is a knave"',
    "<think>Ann is a knight, Bob is a knave, Cid is a knave",
    "<think>Ann is a knight, Bob is a knave, Cid is a knave</think>",
    "<think>Ann is a knight, Bob is a knave, Cid is a knave</think><answer></answer>",
    "<answer>Ann is a knight, Bob is a knave, Cid is a knave</answer> <answer>Ann is a knight</answer>",
    "",
    "knight knave knave",
    "(1) knight (2) knave (3) knave",
    "Ann is a knight/knave, Bob is a knight/knave, Cid is a knight/knave",
    "Ann is a [knight/knave]",
    "Anna is a knight, Bob is a knave, Cid is a knave",
    "Ann is a knave, Bob is a knight, Cid is a knight",
    "All of them are knaves.",
    "Not everyone is a knight. Bob and Cid are knaves.",
    "Ann is a knight, Bob is a knave, Cid is a knave. Wait, Bob is a knight.",
    "Ann is a knight, Bob is a knave, Cid is a knave. Or maybe Bob is a knight.",
    "Ann is a saint, Bob is a sinner, Cid is a sinner",
    "Ann is a knight if and only if Bob is a knave. Bob is a knave. Cid is a knave.",
    "It is not true that Ann is a knight. Bob is a knave. Cid is a knave.",
    "Suppose Ann is a knight. Then Ann is a knight, Bob is a knave and Cid is a knave.",
    "Ann is probably a knight, Bob is a knave, Cid is a knave.",
    "It cannot be determined whether Ann is a knight; Bob is a knave, Cid is a knave.",
    "Ann is not a knight, Bob is a knave, Cid is a knave",
    "Ann and Bob and Cid are a knight and a knave.",
    "Ann and Bob are different. Cid is a knave.",
    "<answer>Ann is a knight, Bob is a knave, Cid is a knave.\n\nAnn is a knave, Bob is a knight, Cid is a knight</answer>",
    "<answer>Ann is a knight. So Ann is a knave. Bob and Cid are knaves.</answer>",
    "Ann is a knight, no, a knave. Bob is a knave. Cid is a knave.",
    "Some of them are knaves. Ann is a knight.",
    "One of them is a knight: Ann",
    "Ann is a knight is false. Bob is a knave. Cid is a knave.",
    "Whether Ann is a knight, Bob is a knave, Cid is a knave is unknown.",
    "Ann might be a knight. Bob and Cid are knaves.",
    "Ann is a knight | Bob is a knave | Cid is either",
    "Ann: knight or knave, Bob: knave, Cid: knave",
    "Assume Ann is a knight. No contradiction is found in their claim that Bob is a knave and Cid is a knave.",
    "Ann: not sure. Bob: knave. Cid: knave.",
    "Knights: Ann, Bob. Knaves: Bob, Cid.",
    "Ann would be a knight, Bob would be a knave, Cid would be a knave",
    'The answer is "Ann is a knight, Bob is a knave, Cid is a knave" or the reverse.',
    "Ann-Marie is a knight, Bob is a knave, Cid is a knave",
    "Mary-Ann is a knight, Bob is a knave, Cid is a knave",
    "Ann is a knight with Bob; Cid is a knave",
    "Ann is a knight, Bob is a knave, Cid is a knave or a knight",
    "<answer>Suppose Ann is a knight. Then Ann is a knight and Bob is a knave and Cid is a knave</answer>",
    "<answer>Ann is a knight, Bob is a knave, Cid is a knave. Ann is a knave.</answer>",
    "<answer>Is Ann is a knight, Bob is a knave, Cid is a knave?</answer>",
    "<answer>(1) Ann is a knight or knave\n(2) Bob is a knave\n(3) Cid is a knave</answer>",
    '<answer>"Ann is a knight, Bob is a knave, Cid is a knave"</answer>',
    "Ann is a knight and also a knave, Bob is a knave, Cid is a knave",
    "Ann: knight\nAnn: knave\nBob: knave\nCid: knave",
    "Ann is a knight, Bob is a knave, Cid is a knave. I am not sure about Cid: Cid might be a knight.",
    "Ann is neither a knight nor a knave, Bob is a knave, Cid is a knave",
    "Ann, Bob, Cid: knight and knave",
    "Knights: Ann\nKnaves: Ann, Bob, Cid",
    "Ann -> knight -> knave; Bob -> knave; Cid -> knave",
    "Ann | knight | knave\nBob | knave | \nCid | knave",
    "Ann isn't a knight nor a knave. Bob is a knave. Cid is a knave",
    "Ann, Bob, Cid. knight, knave, knave",
    "No one is a knight except maybe Ann.",
    "Ann may be a knight; the rest are knaves",
    "The knights are not Ann. The knaves are Bob and Cid.",
    "I don't think Ann is a knight. Bob and Cid are knaves.",
    "Ann is not the knight, Bob and Cid are knaves.",
    "It is not the case that Ann is a knight; Bob is a knave; Cid is a knave.",
    "Ann is hardly a knight, Bob is a knave, Cid is a knave",
    "Ann is no knight, Bob is a knave, Cid is a knave",
    "Ann is anything but a knight, Bob is a knave, Cid is a knave",
    "Ann is a knight only if Bob is a knave. Bob and Cid are knaves.",
    "Ann lies about being a knight. Bob is a knave. Cid is a knave.",
    "Knight: not Ann; Knave: Bob, Cid",
    "Ann or Bob is a knight. Bob and Cid are knaves",
    "Assuming Ann is a knight, Bob is a knave and Cid is a knave.",
    "Ann is a knight implies Bob is a knave and Cid is a knave.",
    "Who is a knight: Ann? Bob is a knave, Cid is a knave.",
    "Ann is the opposite of a knight. Bob and Cid are knaves.",
    "Ann isn't not a knave, Bob and Cid are knaves.",
]

TWO_PEOPLE = [
    ("Ann is a knight, and Bob is a knave", [True, False]),
    ("Ann and Bob are knights", [True, True]),
    ("both are knaves", [False, False]),
    ("Both of them are knights.", [True, True]),
    ("everyone is a knight", [True, True]),
    ("all of them are knaves", [False, False]),
    ("neither is a knight", [False, False]),
    ("Neither of them is a knight", [False, False]),
    ("only Ann is a knight", [True, False]),
    ("They are both knaves", [False, False]),
    ("Both Ann and Bob are knights.", [True, True]),
    ("None of them is a knave", [True, True]),
    ("No one is a knight", [False, False]),
    ("Neither Ann nor Bob is a knave", [True, True]),
    ("Ann and Bob: both knaves", [False, False]),
    ("Everyone: knave", [False, False]),
    ("Knights: Ann, Bob\nKnaves: none", [True, True]),
    ("Knights: none. Knaves: everyone", [False, False]),
    ("All inhabitants are knaves", [False, False]),
    ("Ann and Bob are both knights", [True, True]),
    ("Knights: Ann. Knaves: everyone else", [True, False]),
    ("Nobody is a knight.", [False, False]),
    ("Knights: both", [True, True]),
]


def scored(text: str, names: list[str] = NAMES, solution: list[bool] = SOLUTION, **row: object) -> Score:
    return score(text, names=names, solution=solution, **row)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", RIGHT)
def test_every_way_of_stating_the_answer(text):
    result = scored(text)
    assert result.value == 1.0, result.note
    assert result.parsed == {"Ann": "knight", "Bob": "knave", "Cid": "knave"}
    assert result.parts == {"correct_share": 1.0, "complete": 1.0}
    # The same words under another truth are worth nothing, whatever the share.
    assert scored(text, solution=[True, True, False]).value == 0.0


@pytest.mark.parametrize("text", NOT_AN_ANSWER)
def test_what_is_no_answer_or_a_wrong_one(text):
    result = scored(text)
    assert result.value == 0.0, result.parsed
    assert result.note


@pytest.mark.parametrize(("text", "solution"), TWO_PEOPLE)
def test_groups_of_two(text, solution):
    result = scored(text, ["Ann", "Bob"], solution)
    assert result.value == 1.0, result.note
    assert scored(text, ["Ann", "Bob"], [not solution[0], solution[1]]).value == 0.0


SAINTS = {"knight": "saint", "knave": "sinner", "a_knight": "a saint", "Knight": "Saint", "Knave": "Sinner"}


@pytest.mark.parametrize(
    ("text", "words", "value"),
    [
        ("Ann is a saint, Bob and Cid are sinners", SAINTS, 1),
        ("Saints: Ann. Sinners: Bob, Cid", SAINTS, 1),
        ("SAINT: ANN. SINNERS: BOB AND CID", SAINTS, 1),
        ("Ann is a knight, Bob and Cid are knaves", SAINTS, 0),
        ("Ann is a sinner, Bob and Cid are saints", SAINTS, 0),
        ("Ann is a pioneer; the others are laggards", {"knight": "pioneer", "knave": "laggard"}, 1),
        ("Heroes: Ann\nVillains: Bob, Cid", {"knight": "hero", "knave": "villain"}, 1),
        ("Ann is an altruist, Bob is an egoist, Cid isn't an altruist", {"knight": "altruist", "knave": "egoist"}, 1),
        # published perturbation: the words swap sides
        ("Ann is a knave, Bob and Cid are knights", {"knight": "knave", "knave": "knight"}, 1),
        ("Ann is a knight, Bob and Cid are knaves", {"knight": "knave", "knave": "knight"}, 0),
        ("Ann is a knight, Bob and Cid are knaves", None, 1),
    ],
)
def test_the_puzzles_own_role_words(text, words, value):
    assert scored(text, knight_knave=words).value == value


@pytest.mark.parametrize(
    ("text", "names", "solution", "value"),
    [
        ("Anna is a knight and Ann is a knave.", ["Ann", "Anna"], [False, True], 1),
        ("Ann is a knight and Anna is a knave.", ["Ann", "Anna"], [False, True], 0),
        ("Anna is a knight.", ["Ann"], [True], 0),
        ("Will is a knight. Mark will be right: mark it. Mark is a knave.", ["Will", "Mark"], [True, False], 1),
        ("will is a knight, grace is a knave, mark is a knight.", ["Will", "Grace", "Mark"], [True, False, True], 1),
        ("Jean-Luc is a knight and Jean is a knave", ["Jean", "Jean-Luc"], [False, True], 1),
        ("Jean-Luc is a knight", ["Jean"], [True], 0),
        ("C++ is a knight, A.J. is a knave, (x|y)* is a knight", ["C++", "A.J.", "(x|y)*"], [True, False, True], 1),
        ("A is a knight, B is a knave.", ["A", "B"], [True, False], 1),
        ("Jos\u00e9 is a knight, Zoe\u0308 is a knave", ["Jose\u0301", "Zo\u00eb"], [True, False], 1),
        ("Old  Tom is a knight, Tom is a knave", ["Tom", "Old Tom"], [False, True], 1),
        ("O'Neil is a knight, D'Arcy's a knave", ["O\u2019Neil", "D'Arcy"], [True, False], 1),
    ],
)
def test_awkward_names(text, names, solution, value):
    result = scored(text, names, solution)
    assert result.value == value, result.note


def _list(who):
    return "\n".join(f"({i}) {name} is a {role}" for i, (name, role) in enumerate(who, 1))


def _sentence(who):
    return ", ".join(f"{name} is a {role}" for name, role in who[:-1]) + ", and {} is a {}.".format(*who[-1])


def _table(who):
    return "| Name | Role |\n|---|---|\n" + "\n".join(f"| **{name}** | {role.title()} |" for name, role in who)


def _wide_table(who):
    rows = ["|".join(cells) for cells in zip(*who, strict=True)]
    return f"| {rows[0]} |\n|{'---|' * len(who)}\n| {rows[1]} |"


def _headed(who):
    def named(role):
        return "\n".join(f"- {name}" for name, its in who if its == role)

    return f"**Knights:**\n{named('knight')}\n\n**Knaves:**\n{named('knave')}"


RENDERINGS = {
    "numbered list": _list,
    "sentence": _sentence,
    "table": _table,
    "wide table": _wide_table,
    "headed lists": _headed,
    "colons": lambda who: "\n".join(f"- {name}: {role}" for name, role in who),
    "equals": lambda who: "; ".join(f"{name} = {role}" for name, role in who),
    "arrows": lambda who: ", ".join(f"{name} \u2192 {role}" for name, role in who),
    "json": lambda who: "```json\n{" + ", ".join(f'"{name}": "{role}"' for name, role in who) + "}\n```",
    "boxed": lambda who: "$\\boxed{" + ", ".join(f"\\text{{{name} is a {role}}}" for name, role in who) + "}$",
    "negated": lambda who: " ".join(
        f"{name} is not a {'knave' if role == 'knight' else 'knight'}." for name, role in who
    ),
    "capitals": lambda who: _sentence(who).upper(),
    "tagged": lambda who: f"<think>{_sentence(who[::-1])} No, wait.</think>\n<answer>{_list(who)}</answer>",
    "respectively": lambda who: (
        " and ".join(name for name, _ in who)
        + " are "
        + " and ".join(f"a {role}" for _, role in who)
        + ", respectively."
    ),
}


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("people", [2, 3, 4, 5])
def test_every_assignment_in_every_rendering(rendering, people):
    names = ["Zoey", "Zo", "Mark", "Jean-Luc", "Grace"][:people]
    for roles in itertools.product([True, False], repeat=people):
        text = RENDERINGS[rendering](
            [(name, "knight" if role else "knave") for name, role in zip(names, roles, strict=True)]
        )
        right = scored(text, names, list(roles))
        assert right.value == 1.0, (text, right.note)
        for i in range(people):
            flipped = [role != (i == j) for j, role in enumerate(roles)]
            wrong = scored(text, names, flipped)
            assert wrong.value == 0.0
            assert wrong.parts["correct_share"] == pytest.approx(1 - 1 / people)


def _cases(table):
    return [
        (kind, *case) if isinstance(case, tuple) else (kind, case) for kind, cases in table.items() for case in cases
    ]


def _filled(text, names, solution):
    """The phrasing with names for capital letters and role words for small ones."""
    roles = ["knight" if role else "knave" for role in solution]
    return text.format(**dict(zip("ABC", names, strict=False)), **dict(zip("abc", roles, strict=False)))


@pytest.mark.parametrize(("kind", "text"), _cases(SAYS_ALL))
def test_phrasings_that_say_it_all_under_every_solution(kind, text):
    names = ["Ivy", "O'Neil"]
    for solution in itertools.product([True, False], repeat=2):
        filled = _filled(text, names, solution)
        assert scored(filled, names, list(solution)).value == 1.0, filled
        for wrong in ([not solution[0], solution[1]], [solution[0], not solution[1]]):
            result = scored(filled, names, wrong)
            assert (result.value, result.parts["correct_share"]) == (0.0, 0.5)


@pytest.mark.parametrize(("kind", "text", "roles"), _cases(FIXED))
def test_phrasings_whose_words_fix_the_roles(kind, text, roles):
    names, right = ["Ivy", "Max", "Zoey"][: len(roles)], [role == "T" for role in roles]
    for solution in itertools.product([True, False], repeat=len(roles)):
        result = scored(_filled(text, names, right), names, list(solution))
        assert result.value == (list(solution) == right), result.parsed
        shared = sum(said == true for said, true in zip(right, solution, strict=True)) / len(roles)
        assert result.parts["correct_share"] == pytest.approx(shared)


@pytest.mark.parametrize(("kind", "text"), _cases(SAYS_TOO_LITTLE))
@pytest.mark.parametrize("tagged", [False, True])
def test_phrasings_that_leave_someone_open(kind, text, tagged):
    names = ["Ivy", "Max", "Zoey"][: 3 if "{C}" in text else 2]
    filled = _filled(text, names, [True] * 3)
    for solution in itertools.product([True, False], repeat=len(names)):
        result = scored(f"<answer>{filled}</answer>" if tagged else filled, names, list(solution))
        assert result.value == 0.0, result.parsed


QUIZ = (
    "A very special island is inhabited only by knights and knaves. Knights always tell the truth, and knaves always "
    'lie. You meet 3 inhabitants: Ann, Bob, and Cid. Ann was heard saying, "Bob is a knave or Cid is a knave". "Ann '
    'is a knave if and only if Cid is a knight," Bob mentioned. Cid expressed that Ann is not a knight. According to '
    "Bob, Ann is a knight and Cid is a knave. So who is a knight and who is a knave?"
)
REASONING = (
    "Let's think step by step, by considering whether each person is lying and if that leads to contradiction. "
    "Assume Ann is a knave. Ann cannot be a knave, because this would contradict the false claim of their own that "
    "Bob is a knave or Cid is a knave. Assume Ann is a knight. No contradiction is found in their claim that Bob is a "
    "knave. Cid cannot be a knight, because this would contradict the claim of Cid that Ann is not a knight. Assume "
    "Bob is a knight. This leads to a feasible solution."
)
GOLD = "(1) Ann is a knight\n(2) Bob is a knave\n(3) Cid is a knave"


@pytest.mark.parametrize("puzzle", ["", QUIZ + "\n\n"])
@pytest.mark.parametrize("reasoning", ["", REASONING + "\n", REASONING + "\nCONCLUSION:\n"])
def test_the_published_form_of_question_reasoning_and_answer(puzzle, reasoning):
    assert scored(puzzle + reasoning + GOLD).value == 1.0
    assert scored(f"<think>{puzzle}{reasoning}</think>\n<answer>{GOLD}</answer>").value == 1.0
    assert scored(puzzle + reasoning).value == 0.0
    assert scored(f"<think>{puzzle}{reasoning}{GOLD}</think>").value == 0.0


def test_a_copy_of_the_prompt_is_no_answer():
    prompt = QUIZ + " Answer in this form: (1) Ann is a knight (2) Bob is a knave (3) Cid is a knave."
    assert scored(prompt, prompt=prompt).value == 0.0
    assert scored(prompt, quiz=QUIZ, prompt=prompt).value == 0.0
    assert scored(f"{prompt}\n{GOLD}", prompt=prompt).value == 1.0


def test_thinking_does_not_count():
    assert scored(f"<think>{GOLD}. Ann is not a knight.</think>\n<answer>{GOLD}</answer>").value == 1.0
    assert scored(f"<think>{GOLD}</think>\n<answer>(1) Ann is a knight</answer>").value == 0.0
    assert scored(f"{GOLD}\n<think>but wait").value == 0.0
    assert scored(f"the prompt opened it</think>{GOLD}").value == 1.0


@pytest.mark.parametrize(
    ("text", "section", "tagged"),
    [
        ("<answer>a</answer><answer>b</answer> c", "b", True),
        ("<answer>a</answer><answer>b", "b", True),
        ("<think><answer>a</answer></think>b", "b", False),
        ("<think>a", "", False),
        ("<think>a</think>b<THINK>c</THINK>d", "d", False),
        ("a", "a", False),
    ],
)
def test_answer_section(text, section, tagged):
    assert answer_section(text) == (section, tagged)


def test_the_note_says_why():
    result = scored("Ann is a knight. Bob is a knight.")
    assert result.note == "Bob: said knight, is knave; no statement about Cid"
    assert result.parsed == {"Ann": "knight", "Bob": "knight"}
    assert result.parts == {"correct_share": pytest.approx(1 / 3), "complete": 0.0}
    result = scored("Ann is a knight and a knave. Bob might be a knave. Cid is a knave.")
    assert result.note == "Ann: said to be both knight and knave; Bob: left open"
    assert scored("<think>hm").note.startswith("nothing after the thinking")


@pytest.mark.parametrize(("names", "solution"), [([], []), (["Ann"], [True, False]), (["Ann", "ann"], [True, False])])
def test_a_row_that_makes_no_sense_is_an_error(names, solution):
    with pytest.raises(ValueError, match="one role for each"):
        scored("Ann is a knight", names, solution)


HOSTILE = (
    *(
        "Ann, Bob and ",
        "Ann is a knight. Ann is a knave. ",
        "<think>",
        "<answer>",
        "</answer>",
        "\\boxed{",
        "{",
        "((((",
        '"',
    ),
    *(
        "'",
        "' ",
        "\n \n",
        "|",
        "knight: Ann, ",
        "Ann - - ",
        "all of ",
        "everyone but ",
        "\\",
        "~~a",
        "<b ",
        "\x00",
        " ",
    ),
    *(
        "9^",
        "Ann\n",
        "knights:\n",
        "Answer:\n",
        "Answer: Ann is a knight\n",
        "so ",
        "Ann-",
        "not ",
        "\ue000",
        "(because ",
        "=",
        "-",
        "one of ",
        "based on Ann, ",
        "| Ann | knight ",
        "except Ann ",
        "and so is Ann ",
        "knight, ",
        "Ann or a knight ",
        "because if Ann is a knight so ",
        "\u6545 ",
    ),
)


@pytest.mark.parametrize("chunk", HOSTILE)
def test_a_megabyte_of_anything_ends_soon_and_earns_nothing(chunk):
    for size in (1_000_000, 19_000):  # far over, and just under, what an answer may be long
        text = chunk * (size // len(chunk))
        for completion in (text, f"<answer>{text}</answer>"):
            start = time.perf_counter()
            assert scored(completion).value == 0.0
            assert time.perf_counter() - start < 5, "expected well under a second, even on a busy machine"
