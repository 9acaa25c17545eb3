"""A libvirtd of our own that can be killed and restarted, in a mount namespace of its own.

Its directories are bind mounts of folders of a lab run over the usual ones, so the host's libvirt
does not notice it, and a restarted one finds the guests of the one before. It has the host's
CPUs, processes and user names; network and host name are private.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
import uuid
from typing import TYPE_CHECKING, Self

from virtbalance.lab.assets import cache_folder
from virtbalance.lab.commands import require
from virtbalance.lab.embedded import QEMU_CONF, keep_capabilities, use_kept_capabilities
from virtbalance.lab.errors import LabError
from virtbalance.lab.lab import Lab
from virtbalance.lab.processes import mount_namespace
from virtbalance.lab.reaper import inherit_orphans
from virtbalance.lab.runs import NAMESPACE_FILE, end_run, new_run

if TYPE_CHECKING:
    from collections.abc import Callable

MOUNTS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}

READY_TIMEOUT_S = 60.0


class PrivateLibvirtd:
    """A libvirtd and its guests, ended when the context is left.

    Needs root, and raises LabError without. Its guests live on when it is killed.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        if os.geteuid():
            raise LabError("a private libvirtd needs root")
        self._libvirtd = require("libvirtd", "libvirt-daemon")
        self._unshare = require("unshare", "util-linux")
        self._say = say
        self._run = new_run(say)
        self._process: subprocess.Popen[bytes] | None = None
        # Not qemu:///system, which the embedded driver takes for itself where it is in the process.
        self.uri = f"qemu+unix:///system?socket={self._run}/run/libvirt-sock"
        self._prepare()
        inherit_orphans()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The daemon's process; LabError if it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise LabError("the private libvirtd does not run")
        return self._process.pid

    def lab(self) -> Lab:
        """Open a lab on it."""
        return Lab.on(self.uri, self._say, folder=self._run / "g", pids=self._run / "run" / "qemu")

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        mounts = "".join(
            f"mkdir -p {target} && mount --bind {shlex.quote(str(self._run / name))} {target} && "
            for name, target in MOUNTS.items()
        )
        daemon = shlex.join(
            [
                self._libvirtd,
                f"--config={self._run}/etc/libvirtd.conf",
                f"--pid-file={self._run}/run/libvirtd.pid",
            ]
        )
        with (self._run / "log" / "daemon.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._unshare, "-mun", "sh", "-c", f"{mounts}exec {daemon}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready()
        with (self._run / NAMESPACE_FILE).open("a") as file:
            file.write(mount_namespace(self.pid) + "\n")
        keep_capabilities(self._run, cache_folder())

    def kill(self) -> None:
        """Kill the daemon at once (SIGKILL); guests live on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the daemon in an orderly way; guests live on."""
        self._end(signal.SIGTERM)

    def close(self) -> None:
        """End the daemon and all its guests, and remove its files."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        end_run(self._run)

    def _prepare(self) -> None:
        for name in (*MOUNTS, "g"):
            (self._run / name).mkdir(exist_ok=True)
        (self._run / "etc" / "qemu.conf").write_text(QEMU_CONF + "cgroup_controllers = []\n")
        (self._run / "etc" / "libvirtd.conf").write_text(
            f'host_uuid = "{uuid.uuid4()}"\n'
            'auth_unix_rw = "none"\n'
            'auth_unix_ro = "none"\n'
            f'log_outputs = "3:file:{self._run}/log/libvirtd.log"\n'
        )
        use_kept_capabilities(self._run, cache_folder())

    def _end(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
        assert self._process is not None
        self._process.wait()

    def _wait_until_ready(self) -> None:
        import libvirt

        from virtbalance.hypervisor.event_loop import ensure_event_loop

        ensure_event_loop()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                libvirt.open(self.uri).close()
            except libvirt.libvirtError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"private libvirtd: {error} ({self._last_words()})") from error
                time.sleep(0.05)
            else:
                return

    def _last_words(self) -> str:
        said = (self._run / "log" / "daemon.log").read_text(errors="replace").strip()
        return said.splitlines()[-1] if said else "it said nothing"
