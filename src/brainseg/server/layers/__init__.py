"""What every request passes before a route sees it, as ASGI layers, outermost first.

``Proxies`` (what a proxy says of the request) > ``Records`` (id, log, metrics) > ``Guard`` (hosts, token, headers) >
``AnswerHead`` > ``BodyLimits``
"""
