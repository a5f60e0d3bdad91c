"""The command ``brainseg predict``.

Holds the search for cases, the run over them and the folder of answers.
May touch inference, io and what is below; reaches no engine and no pandas.
"""
