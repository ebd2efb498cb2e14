"""llama.cpp: one worker process per loaded model, under a guard, on a Unix socket of its own.

``engine`` finds models and loads them; ``process`` owns guard and worker; ``model`` is one
incarnation; ``connection``, ``body`` and ``events`` speak the server's HTTP. ``guard`` and
``worker`` are programs: they run in processes of their own and are imported by nobody.
"""
