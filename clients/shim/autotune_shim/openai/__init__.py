"""The OpenAI dialect: chat completions, completions and models.

    sampling.py                                  the fields that both requests share
    messages.py                                  chat messages
    chat_request.py      chat_answer.py          POST /v1/chat/completions
    completion_request.py completion_answer.py   POST /v1/completions
    models.py                                    GET /v1/models, /v1/models/{id}
    figures.py  errors.py                        numbers and errors in OpenAI's shape
    routes.py                                    the endpoints

All but ``routes`` are plain functions and classes without I/O.
"""
