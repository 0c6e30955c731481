"""Rewards at work: the contract, loading one, calling it with care, and the worker processes with their limits.

The rewards themselves are in `rewards/`; importing this room runs none of them.

Other rooms import: `ahead`, `calling`, `loading`, `pool`, `score`, `scorer`.
"""
