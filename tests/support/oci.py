"""An image as an archive of the OCI's layout, made of a folder: one layer, not packed."""

import hashlib
import io
import json
import platform
import tarfile

_TYPE = "application/vnd.oci.image.{}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_archive(path, root, environment, left_out=()):
    """Write the archive; `left_out` are paths below the folder that the image does without."""
    layer = path.with_suffix(".layer")
    try:
        _write_layer(layer, root, {"dev", "proc", "sys", ".singularity.d", *left_out})
        with tarfile.open(path, "w") as archive:
            # Where a folder is not in the archive, only root can unpack it.
            for name in ("blobs", "blobs/sha256"):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(folder)
            _add_blobs(archive, layer, environment)
    finally:
        layer.unlink(missing_ok=True)


def _write_layer(path, root, left_out):
    with tarfile.open(path, "w") as layer:
        layer.add(root, ".", filter=lambda one: None if one.name.removeprefix("./") in left_out else one)


def _add_blobs(archive, layer, environment):
    with layer.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    archive.add(layer, _place(digest))
    layers = [{"mediaType": _TYPE.format("layer.v1.tar"), "digest": digest, "size": layer.stat().st_size}]
    runs_on = {"os": "linux", "architecture": _ARCHITECTURES[platform.machine()]}
    variables = {"Env": [f"{name}={text}" for name, text in environment.items()]}
    config = {**runs_on, "config": variables, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    manifest = {"schemaVersion": 2, "config": _blob(archive, "config.v1+json", config), "layers": layers}
    index = {"schemaVersion": 2, "manifests": [_blob(archive, "manifest.v1+json", manifest) | {"platform": runs_on}]}
    _add(archive, "index.json", json.dumps(index).encode())
    _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def _blob(archive, kind, content):
    """Add the content, and say where it is."""
    data = json.dumps(content).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _add(archive, _place(digest), data)
    return {"mediaType": _TYPE.format(kind), "digest": digest, "size": len(data)}


def _place(digest):
    return "blobs/" + digest.replace(":", "/")


def _add(archive, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
