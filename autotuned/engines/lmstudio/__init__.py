"""LM Studio: an app whose server loads models and answers for them.

``engine`` is the way in. ``rest`` speaks its own API, ``instances`` decides what is loaded and unloaded,
``model`` answers through its routes in OpenAI's dialect, ``facts`` says what its models are.
Invariant: whatever happens, the daemon never makes LM Studio hold a model twice.
"""
