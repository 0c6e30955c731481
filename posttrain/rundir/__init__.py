"""What a run leaves behind, and the guard at its door: files whole or absent, a changed recipe refused, secrets masked.

What its numbers mean is `reading/`'s.

Other rooms import: `completions`, `data_changes`, `facts`, `layout`, `looking`, `masking`, `reading`, `refusals`,
`shared`, `unstarted`, `warmed`.
"""
