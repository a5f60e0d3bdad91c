"""The page and the API over HTTP.

Holds the routes, their limits, the queue, and the process that opens uploaded files.
May import inference, io, reporting.model_card and what is below them. Only this folder imports a web framework.
"""
