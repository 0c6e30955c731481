"""What each run works out anew and is the same in all: imported by the server, its forks have it.

The report's templates and a sampler's pass are compiled, and transformers' table of renamed weights is made: 0.2 s of
the 1.3 s of a run.
"""

from __future__ import annotations

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from posttrain.drawing.page import _jinja
from posttrain.rollouts.llama_pass import in_one_call

in_one_call()
_jinja("posttrain.report").get_template("report.html.j2")
get_checkpoint_conversion_mapping("llama")
