"""A server with a fake model in its own process: ``python -m tests.support.server_process SECONDS``."""

import sys

from brainseg.inference.plausibility import Verdict
from brainseg.server import app, serve
from tests.support.server_fixture import Model

if __name__ == "__main__":
    model = Model()
    model.seconds = float(sys.argv[1])
    listening = serve.listen("127.0.0.1", 0)
    print(serve.address("127.0.0.1", listening.getsockname()[1], None), flush=True)
    served = app.create_app(model, lambda _: Verdict(False, []))
    serve.server_of(served).run([listening])
