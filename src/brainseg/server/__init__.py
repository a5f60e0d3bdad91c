"""The page and the API over HTTP.

Holds the routes, their bounds, the queue and the process that opens strangers' files.
May touch inference, io, reporting.model_card and what is below; web frameworks are imported here alone.
"""
