"""The command ``brainseg predict``.

Holds the search for cases, the run over them and the folder of results.
May import inference, io and what is below them; reaches no engine and no pandas.
"""
