"""What a recipe names, resolved and checked: rows, rewards, leaks between them, and demonstrations as token ids.

Where rows come from is `tasks/`'s; what a reward is, `scoring/`'s.

Other rooms import: `applying`, `compatible`, `curriculum`, `data`, `demonstrated`, `ends`, `first_step`, `four_bit`,
`gathering`, `inputs`, `judged`, `leaks`, `looked_for`, `misfits`, `overlap`, `pairs`, `rendering`, `same_stream`,
`shown`, `tokens`.
"""
