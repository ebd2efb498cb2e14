"""What the header of a GGUF file says of its model: ``facts`` joins what the other modules read.

Engines whose models are GGUF files use it. The architectures are those of llama.cpp, which all of them run.
"""
