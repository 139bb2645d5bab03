"""A node with a thousand servers in one process, for a machine that could not hold them: `stand_in_node.py FOLDER`.

Each script that the folder `scripts` gets is a job by its name. What its launcher would do is done here: make a key,
trade the ticket for a certificate, listen by TLS on a port of its own, and report it.
"""

import asyncio
import http.client
import json
import shlex
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_LOOK_S = 0.1
_AGAIN_S = 0.5
_BODY = b'{"version": "0"}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-JupyterHub-Version: 6.1.1\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


async def serve(folder: Path) -> None:
    """Start the server of each job, for ever."""
    known: dict[str, asyncio.Task[Any]] = {}
    while True:
        for script in folder.joinpath("scripts").iterdir():
            if script.name.isdigit() and script.name not in known:
                known[script.name] = asyncio.create_task(_job(script))
        await asyncio.sleep(_LOOK_S)


async def _job(script: Path) -> asyncio.Server:
    settings = _settings(script.read_text())
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    given = await _call(settings, "/ticket", {"ticket": settings["ticket"], "job": script.name, "csr": pem})
    server = await asyncio.start_server(_answers, "0.0.0.0", 0, ssl=_context(key, given))  # noqa: S104 - a node of the lab's
    port = server.sockets[0].getsockname()[1]
    await _call(settings, "/report", {"report_key": given["report_key"], "event": "listening", "port": port})
    return server


def _settings(script: str) -> dict[str, Any]:
    """What the launcher is given: the last word of the second pipe that the script opens."""
    words = shlex.shlex(script.partition(") 4< <(")[2], posix=True)
    words.whitespace_split = True
    settings: dict[str, Any] = json.loads([words.get_token() or "" for _ in range(3)][2].removesuffix(")"))
    return settings


async def _call(settings: dict[str, Any], place: str, body: dict[str, Any]) -> dict[str, Any]:
    """The Hub's answer, which may say that it is too early."""
    while (answer := await asyncio.to_thread(_post, settings, place, body)) is None:
        await asyncio.sleep(_AGAIN_S)
    return answer


def _post(settings: dict[str, Any], place: str, body: dict[str, Any]) -> dict[str, Any] | None:
    url = urlsplit(settings["callback"] + place)
    trust = ssl.create_default_context(cadata=settings["ca"])
    connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=60, context=trust)
    try:
        connection.request("POST", url.path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    except OSError:
        return None
    finally:
        connection.close()
    if response.status >= 500:
        return None
    if response.status != 200:
        raise RuntimeError(f"{place}: {response.status} {text!r}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def _context(key: ec.EllipticCurvePrivateKey, given: dict[str, Any]) -> ssl.SSLContext:
    """For the Hub and its proxy alone, as a server's own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=given["authorities"])
    context.verify_mode = ssl.CERT_REQUIRED
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(private.decode() + given["certificate"])
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(_ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        pass
    finally:
        writer.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
