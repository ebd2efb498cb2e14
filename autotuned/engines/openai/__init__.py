"""Servers that speak OpenAI's dialect, here or far away: vLLM, SGLang, llama.cpp, MLX-LM, routers.

``engine`` is the port, one for each name in ``openai.upstreams``; ``server`` one server of it, ``requests``
the choice between equals. Nothing here starts a process.
"""
