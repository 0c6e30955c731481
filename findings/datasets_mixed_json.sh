#!/usr/bin/env bash
# datasets 5.2.0 gives texts of JSON Lines back as other values where their column has values of several kinds.
#
# rows   {"answer": "007"}, {"answer": "null"}, {"answer": 42}, {"answer": "[1, 2]"}, {"answer": "x"}
# read   7, None, 42, [1, 2], 'x'
# Of texts alone ("007", "null") they come back as they are. A mixed column becomes one of JSON text, in which texts that
# are JSON themselves stand without quotes: the text "42" and the number 42 are the same from then on, decoded or not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0
HF_HOME="$folder/hf" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" -W ignore - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import datasets

datasets.disable_progress_bars()


def read(name, answers):
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps({"answer": each}) + "\n" for each in answers))
    rows = datasets.load_dataset(str(folder), split="train")
    print(f"{name:6} {answers} -> {list(rows['answer'])}, stored as {rows.data.column('answer').to_pylist()}")
    return list(rows["answer"])


assert read("texts", ["007", "null", "42"]) == ["007", "null", "42"]
assert read("mixed", ["007", "null", 42, "[1, 2]", "x"]) == [7, None, 42, [1, 2], "x"], "this has changed"
PYTHON
