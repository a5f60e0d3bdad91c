"""How public data sets lay out their files: each module recognises one layout and finds its cases by name.

``finding`` is what they share, ``patient_table`` says whose each case is.
"""
