"""A study's results on file: study.json, a Markdown table to paste, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from posttrain.storage import files
from posttrain.study.page import study_page
from posttrain.study.study import Study
from posttrain.study.tables import markdown


def write(study: Study, judged: Mapping[str, Any]) -> None:
    """Write what `judge` gave, each file whole."""
    files.write_text(
        study.folder / "study.json", json.dumps(files.plain(dict(judged)), ensure_ascii=False, indent=1) + "\n"
    )
    files.write_text(study.folder / "study.md", markdown(judged))
    files.write_text(study.folder / "study.html", study_page(judged))
