"""Studies: the file, the queue of runs, the judgement and the page."""
