import asyncio, sys, uvloop

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
from autotuned.__main__ import main

sys.exit(main([]))
