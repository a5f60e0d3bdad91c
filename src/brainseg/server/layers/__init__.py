"""What every request passes before a route sees it, as ASGI layers, outermost first.

``Records`` (id, log, metrics) > ``Proxies`` (what a proxy says of the request) > ``Guard`` (hosts, token, headers) >
``AnswerHead`` > ``BodyLimits``
"""
