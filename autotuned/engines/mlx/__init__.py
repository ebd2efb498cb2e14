"""MLX: one worker process per loaded model, under a guard, on a Unix socket of its own.

``engine`` finds models and loads them; ``model`` is one incarnation; ``facts`` reads what a folder says
of its model without loading it. ``worker`` is a program that runs in a process of its own, and ``inside``
is what it is made of: nothing else imports either, and they alone import ``mlx``.
"""
