"""A recipe in small, on a CPU and in a minute: tiny model, real data and rewards, a stop and a resume in each stage.

What runs is `running/`'s; only what is scaled down, and what is looked at afterwards, belongs here.
"""
