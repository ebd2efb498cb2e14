"""Fetches models: from registries that speak Ollama's protocol, and from Hugging Face.

The work is done by a process for each download (``worker``), so that nothing that it needs stays in the
daemon and nothing that it does holds the daemon up. ``downloader`` is the daemon's side.

A source is a module that the worker imports by ``Job.source``: ``registry`` or ``huggingface``. It has
one function, ``resolve(job: Job) -> Found`` (``source.Found``). It looks up what there is and what is
missing, and fetches nothing. Of what it returns ``line`` is what the daemon is told, and ``fetch(tell)``
does the work: it calls ``tell(Step)`` as often as it likes (``worker`` lets ten a second through, and every
change of phase) and returns ``Done``. Both raise ``DownloadFailure`` for what a person is to be told; a disk
that refuses may come as ``OSError``; anything else is a fault, and its traceback goes to the daemon's log. A
source writes nothing to standard output, reads no standard input, and may be ended at any moment: what lies
on the disk is then either complete or a part that the next download goes on from.
"""
