"""The commands, a file each: arguments and printing only; what a command does lives in the rooms below.

`cli.py` takes `ADDERS`, in the order in which help shows them. Nothing heavy is imported to parse, and nothing that a
library user could want belongs here.
"""

from posttrain.commands import (
    compare,
    data,
    doctor,
    eval,
    explain,
    export,
    init,
    launch,
    merge,
    plan,
    replay,
    run,
    runs,
    schedule,
    serve,
    study,
    view,
)
from posttrain.commands.rewards import arguments as rewards

ADDERS = (
    init.add,
    run.add,
    launch.add,
    eval.add,
    serve.add,
    data.add,
    rewards.add,
    doctor.add,
    plan.add,
    explain.add,
    replay.add,
    schedule.add,
    runs.add,
    view.add,
    compare.add,
    study.add,
    export.add,
    merge.add,
)
