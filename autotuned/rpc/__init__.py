"""The wire: one servicer per proto service, one bridge for errors, one conversion each way.

gRPC's fork handlers restart its threads in a forked child, where they may crash before the child
has become the worker that was wanted. Nothing here uses gRPC after a fork, so they are off; the
variable is read when gRPC is first used.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
