"""A study: the same recipe under several arms, each tuned by one rule and run at the same cost, and what tells them
apart.

Runs are made by `posttrain run`, in processes of their own, and a study knows no more of them than their directories
say. How a run trains does not belong here.

Other rooms import: `judged`, `queue`, `show`, `study`, `writing`.
"""
