"""The recovery sheet: what to keep away from this host, and what to type on the day the host is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackward.core.model import display
from stackward.steps import signing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackward.config import Settings


def _signer(settings: Settings) -> str:
    signing.key_file(settings)
    return signing.public_key(settings)


def sheet(settings: Settings, recipients: Sequence[str], key: Path | None, host: str) -> str:
    """Text to print and keep. `key` is the identity file on this host, if it is here; its content is never in it.

    The key that signs config backups is made where it is not there yet: its public half is on the sheet.
    """
    signer = _signer(settings)
    root, backups = display(settings.docker_root), display(settings.backup_root)
    whom = "\n".join(f"     {recipient}" for recipient in recipients) or "     nobody yet: secrets are in no backup"
    where = f"Copy {display(key)} (now!)" if key is not None else "Keep the identity file of these recipients"
    return f"""\
STACKWARD RECOVERY SHEET for {host}

Keep somewhere that burns down separately (a password manager, a printout):
  1. This sheet.
  2. The age identity that opens the secrets capsules. {where}. Without it .env files and keys are lost.
     Secrets are encrypted to:
{whom}
  3. This appliance signs its config backups. Who has this line can tell that they are its own:
     {signer}
  4. The backups themselves, {backups}: a disk beside the host is gone with the host.

On a new host with Docker Engine and Compose:
  1. Attach the backups at {backups}, make {root}, and start the appliance as its README says.
  2. Put the identity at {display(settings.config_dir)}/age.key (mode 0600).
     Put the line of 3. above into {display(settings.config_dir)}/trusted_signers.
  3. docker exec stackward stackward verify
  4. docker exec stackward stackward restore config --secrets --identity {display(settings.config_dir)}/age.key
     A secret that lay outside {root} is left out, and named, while its directory is not there: make those directories,
     mount them into the appliance (compose.yaml) if it does not see them, and repeat this step.
  5. For each stack: docker exec stackward stackward restore STACK
  6. In each stack's directory, infrastructure first: docker compose up -d

Without Stackward, with tools that every system has:
  cd {backups}
  echo "stackward {signer}" >/tmp/signers
  ssh-keygen -Y verify -f /tmp/signers -I stackward -n {signing.NAMESPACE} -s configs-STAMP.tar.gz.sha256.sig \\
    <configs-STAMP.tar.gz.sha256
  sha256sum -c configs-STAMP.tar.gz.sha256 && tar -xzpf configs-STAMP.tar.gz -C {root}
  age -d -i age.key secrets-STAMP.tar.gz.age | tar -xzp -C {root}
  # Secrets from outside {root} are below {root}/.outside then: move each to where its path says.
  (cd data-DATE && sha256sum --quiet -c MANIFEST.sha256)
  rsync -aHAXS --numeric-ids data-DATE/STACK/ {root}/STACK/data/
  # Named volumes and other trees are in data-DATE/.mounts/STACK/; data-DATE/stackward.json says where each belongs.
"""
