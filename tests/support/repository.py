"""Repositories as git makes them, for what reads them without git."""

import os
import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, with no settings of this machine; gives what it prints."""
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "ada@example.org" for who in ("AUTHOR", "COMMITTER")},
        },
    )
    return done.stdout.strip()


def repository(folder: Path, *flags: str) -> Path:
    """Make a repository with one commit on the branch main."""
    folder.mkdir()
    git(folder, "init", "--initial-branch=main", *flags)
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    """Commit something; gives the commit."""
    git(folder, "commit", "--allow-empty", "--message=a step")
    return git(folder, "rev-parse", "HEAD")
