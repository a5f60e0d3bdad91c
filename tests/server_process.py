"""A server with a stand-in for its model, in a process of its own: ``python -m tests.server_process SECONDS``."""

import sys

from brainseg import server, server_start
from brainseg.plausibility import Verdict
from tests.server_fixture import Model

if __name__ == "__main__":
    model = Model()
    model.seconds = float(sys.argv[1])
    listening = server_start.listen("127.0.0.1", 0)
    print(server_start.address("127.0.0.1", listening.getsockname()[1], None), flush=True)
    app = server.create_app(model, lambda _: Verdict(False, []))
    server_start.server_of(app).run([listening])
