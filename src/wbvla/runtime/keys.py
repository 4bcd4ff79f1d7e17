"""CURVE keys and the allow-list that a server needs beyond loopback.

In: a folder. Out: key files; on the server `server.key_secret` and `clients/*.key` (the allow-list: public keys), on
the robot `robot.key_secret` and `server.key`. Make them with `python -m wbvla.runtime.keys FOLDER`.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

import zmq
import zmq.auth


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def write_keys(folder: str | Path) -> Path:
    """Create one server and one robot key pair in a new folder. Raises ValueError if it exists."""
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"keys: {folder} exists; expected a new folder, so that no key in use is overwritten")
    (folder / "clients").mkdir(parents=True, mode=0o700)
    for name in ("server", "robot"):
        _, secret = zmq.auth.create_certificates(folder, name)
        os.chmod(secret, 0o600)
    os.replace(folder / "robot.key", folder / "clients" / "robot.key")
    return folder


def secure_server(socket: zmq.Socket, folder: str | Path):
    """Make a socket (before bind) accept only the keys in FOLDER/clients.

    Returns:
        The authenticator thread; stop it after the socket is closed.
    Raises:
        ValueError: a key file is missing or the allow-list is empty.
    """
    from zmq.auth.thread import ThreadAuthenticator

    public, secret = _load(Path(folder) / "server.key_secret")
    allowed = Path(folder) / "clients"
    if not any(allowed.glob("*.key")):
        raise ValueError(f"keys: got no client in {allowed}, expected the public key NAME.key of each allowed robot")
    authenticator = ThreadAuthenticator(socket.context)
    authenticator.start()
    authenticator.configure_curve(domain="*", location=str(allowed))
    socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True
    return authenticator


def secure_client(socket: zmq.Socket, folder: str | Path) -> None:
    """Make a socket (before connect) speak only to the server of `server.key`. Raises ValueError without the files."""
    folder = Path(folder)
    socket.curve_publickey, socket.curve_secretkey = _load(folder / "robot.key_secret")
    server = folder / "server.key"
    if not server.is_file():
        raise ValueError(f"keys: no {server}; copy the server's public key to the robot")
    socket.curve_serverkey = zmq.auth.load_certificate(server)[0]


def _load(path: Path) -> tuple[bytes, bytes]:
    if not path.is_file():
        raise ValueError(f"keys: no {path}; make keys with `python -m wbvla.runtime.keys FOLDER`")
    public, secret = zmq.auth.load_certificate(path)
    if secret is None:
        raise ValueError(f"keys: {path} holds only a public key, expected a .key_secret file")
    return public, secret


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m wbvla.runtime.keys FOLDER")
    try:
        print(f"wrote {write_keys(sys.argv[1])}: copy robot.key_secret and server.key to the robot")
    except ValueError as error:
        sys.exit(str(error))
