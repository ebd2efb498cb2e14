"""Ollama: a server that others may use as well, spoken to in its own dialect.

``engine`` is what the daemon makes; everything else here serves it. Of several clients that ask for one model
with different contexts each makes Ollama load it anew, so all requests of ours carry the same load options.
"""
