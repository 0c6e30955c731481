"""What is seen of a run while it trains: lines, the live view, trackers.

Nothing here changes a run; what is read of it afterwards is `reading/`'s.

Other rooms import: `live`, `opening`, `progress`, `quiet`, `sparkline`, `terminal`, `tracker_packages`,
`trackers`.
"""
