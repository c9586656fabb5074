"""Network namespaces: a machine of its own, as far as a process sees the network."""

import subprocess
import sys

import pytest

# Runs a command in a network namespace of its own in which the loopback interface is up.
LOOPBACK_UP = """
import fcntl, socket, struct, subprocess, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
sys.exit(subprocess.call(sys.argv[1:]))
"""
NAMESPACE = ("unshare", "--net")
NO_NETWORK = (*NAMESPACE, sys.executable, "-c", LOOPBACK_UP)


def needs_namespaces() -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a network namespace (root)")
