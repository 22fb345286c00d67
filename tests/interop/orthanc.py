"""Orthanc server with the DICOMweb plug-in of Debian's packages, in a temporary folder."""

import json
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

USER, PASSWORD = "watcher", "s3cret"
TITLE = "ORTHANC"
_PLUGIN = "libOrthancDicomWeb.so"
_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins")
_LONGEST_S = 30.0


@dataclass(eq=False)
class Orthanc:
    """Orthanc server; its storage folder survives a stop."""

    folder: Path
    binary: str
    plugin: Path
    http_port: int
    dicom_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    @property
    def user_file(self) -> Path:
        return self.folder / "user"

    def start(self) -> None:
        """Starts the server and waits until it responds."""
        configuration = {
            "Name": "test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": TITLE,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "DicomAlwaysAllowStore": True,
            "Plugins": [str(self.plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (self.folder / "orthanc.json").write_text(json.dumps(configuration))
        self.user_file.write_text(f"{USER}:{PASSWORD}\n")
        with (self.folder / "log").open("ab") as log:
            command = [self.binary, str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + _LONGEST_S
        while True:
            try:
                if self.get("system").ok:
                    return
            except requests.ConnectionError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(_LONGEST_S)
            self.process = None

    def get(self, path: str, **query: str) -> requests.Response:
        return requests.get(f"{self.url}/{path}", auth=(USER, PASSWORD), params=query, timeout=_LONGEST_S)

    def upload(self, path: Path) -> None:
        answer = requests.post(
            f"{self.url}/instances", data=path.read_bytes(), auth=(USER, PASSWORD), timeout=_LONGEST_S
        )
        answer.raise_for_status()

    def instances(self, study_uid: str, modality: str) -> list[str]:
        """Returns the SOPInstanceUIDs of a study's instances of one modality, by QIDO-RS."""
        answer = self.get(f"dicom-web/studies/{study_uid}/instances", Modality=modality)
        return sorted(entry["00080018"]["Value"][0] for entry in answer.json())


def make_orthanc(folder: Path) -> Orthanc:
    """Returns a server that is not started; skips the test if Orthanc is not installed."""
    binary = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin")
    binary = shutil.which("Orthanc") or binary
    plugins = [Path(folder) / _PLUGIN for folder in _FOLDERS if (Path(folder) / _PLUGIN).exists()]
    if binary is None or not plugins:
        pytest.skip("no Orthanc with its DICOMweb plug-in (Debian: orthanc, orthanc-dicomweb)")
    folder.mkdir()
    return Orthanc(folder, binary, plugins[0], _free_port(), _free_port())


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
