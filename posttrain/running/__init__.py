"""A run from start to report: its stages, what happens around their steps, and what to do when memory runs out.

How a step is made is `training/`'s; how several processes are started, `launch/`'s. (`posttrain.run` is the public
function, so this room is not called that.)

Other rooms import: `alarm_callback`, `loading`, `pipeline`, `policies`, `remedies`.
"""
