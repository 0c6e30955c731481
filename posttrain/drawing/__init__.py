"""Charts and pages as pure functions: numbers in, SVG or HTML out.

What a run's files mean does not belong here; who draws one hands in what is to be seen.

Other rooms import: `charts`, `page`, `scale`, `steps`, `strip`.
"""
