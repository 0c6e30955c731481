"""The pages about runs, from what their directories hold.

Facts are computed in `reading/`, drawn in `drawing/`; what is put where on a page belongs here.

Other rooms import: `compare_page`, `intervals`, `report`, `tables`.
"""
