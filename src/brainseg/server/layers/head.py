"""HEAD wherever GET is answered: the same headers, no body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEAD = "head"


def is_head(scope: Scope) -> bool:
    """Whether nobody will see the body of the answer."""
    return bool(scope.get("state", {}).get(_HEAD))


class AnswerHead:
    """Pass HEAD on as GET, and drop the body of the answer. FastAPI's routes answer GET alone.

    ``is_head`` tells those that would read or make a large body.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        inner = {**scope, "method": "GET", "state": {**scope.get("state", {}), _HEAD: True}}
        try:
            await self.app(inner, receive, send_without_body)
        finally:
            scope["route"] = inner.get("route")  # for the log
