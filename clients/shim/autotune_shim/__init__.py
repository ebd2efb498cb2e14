"""The HTTP server in front of the daemon: other services' dialects, spoken by local models.

    server.py       binds the port and runs uvicorn
    app.py          the routes, over one connection to the daemon
    health.py       GET /health
    openai/         a dialect: requests to GenerateRequest, events to answers
    exchange.py     what a dialect and the transport agree upon
    generation.py   the transport of a generation, with stream.py, disconnect.py and http.py
    json_body.py    bodies into structs; sse.py: events into bytes

A new dialect is a module or package beside ``openai`` that offers ``routes()``; ``app.py`` lists it.
It translates with plain functions and leaves sockets, waiting and cancelling to ``generation``.
Imports ``autotune`` and never the daemon. Invariant: nothing here decides, counts or guesses; every
number in an answer is the engine's or the daemon's.
"""
