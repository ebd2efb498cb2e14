"""The HTTP server in front of the daemon: other services' dialects, spoken by local models.

    server.py      binds the port and runs uvicorn
    app.py         the routes; one connection to the daemon for all of them
    exchange.py    what a dialect and the transport agree upon
    generation.py  the transport of one generation: body in, whole answer or event stream out
    health.py      GET /health
    openai/        a dialect: pure translation, request to GenerateRequest and events to answer

A new dialect is a module or package beside ``openai`` that offers ``routes()``; ``app.py`` lists it.
Imports ``autotune`` and never the daemon. Invariant: nothing here decides, counts or guesses; every
number and every refusal in an answer is the daemon's.
"""
