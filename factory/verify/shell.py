"""`factory boot`: a disposable guest of an artifact to look around in. What is done in it is gone when it ends."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable

from factory.verify.request import GuestRequest
from factory.verify.run import machine_of
from factory.vm.guest import Started
from factory.vm.session import Session, open_session

Say = Callable[[str], None]
Ready = Callable[[Session], None]


def look(request: GuestRequest, say: Say, on_start: Started | None = None, ready: Ready = lambda _: None) -> None:
    """Boot the request's artifact, say how to get in, and stay until the guest is shut down or the user interrupts.

    `ready` is told the session once the guest can be entered.
    Raises BootError where it does not come up. A KeyboardInterrupt passes through once the guest is gone.
    """
    with open_session(request.way, lambda *entry: machine_of(request, *entry), request.work, on_start) as session:
        say(f"booting {request.name} ({request.accelerator}); its console: {session.guest.machine.console}")
        session.wait(request.boot_deadline_s)
        say(f"it is up after {session.guest.uptime_s:.0f} s; get in with\n  {command_line(session)}")
        for port, here in sorted(session.guest.ports.items()):
            if port != 22:
                say(f"its port {port} is 127.0.0.1:{here}")
        say("nothing done in it is kept; Ctrl-C ends it")
        ready(session)
        while session.guest.alive:
            time.sleep(0.5)


def command_line(session: Session) -> str:
    """What to paste into a shell to get in, from any folder."""
    return shlex.join(command(session))


def command(session: Session) -> list[str]:
    """`command_line` as an argument list."""
    return ["ssh", "-F", str(session.ssh_config), "-o", "ControlPath=none", "guest"]
