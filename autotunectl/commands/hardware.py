"""autotunectl hardware: the machine, what models may take of it, and what closing programs would gain."""

from __future__ import annotations

from autotunectl.hardware_report import render
from autotunectl.json_output import message_json
from autotunectl.options import verb
from autotunectl.session import Session


@verb("hardware")
def command(session: Session) -> None:
    """Show the machine, what models may take of it, and what would fit.

    A Budget is what a model may take of one kind of memory while other programs take what they usually
    take, what of it can be had now, and how that comes about. FIT says how a first message would fit now.
    Speeds are estimates, from bandwidth and size or from what was measured.
    """
    with session.connect() as client:
        response = client.hardware()
    if session.json:
        session.write_json(message_json(response))
    else:
        session.write(render(response, session.out_style))
